"""The roll call before JAX takes over: who is missing is named, and no stranger answers for another."""

import contextlib
import socket
import threading
import time

import pytest

from kanana_jax.parallel import multihost
from kanana_jax.parallel.line import Line

SECRET = b"what the processes share"


@pytest.mark.parametrize("present, missing", [((1, 2), ""), ((1,), "2")])
def test_strangers_do_not_answer_for_others(present, missing):
    with socket.socket() as probe:
        probe.bind(("", 0))
        port = probe.getsockname()[1]
    deadline, found = time.monotonic() + (20 if not missing else 1.5), {}

    def call(index, work):
        config = multihost.ProcessConfig(f"localhost:{port}", 3, index, 20, SECRET)
        found[index] = work("localhost", port, config, deadline)

    threads = [threading.Thread(target=call, args=(0, multihost._receive))]
    threads[0].start()
    strangers = []
    while len(strangers) < 4:
        with contextlib.suppress(OSError):
            strangers.append(socket.create_connection(("localhost", port)))
            strangers[-1].sendall((b"2", b"2\n", b"0" * 32 + b"\n" + b"0" * 64 + b" 2\n", b"")[len(strangers) - 1])
    forged = Line.connect(("localhost", port), b"the secret of another run", 2.0)
    forged.send(2)
    known = Line.connect(("localhost", port), SECRET, 2.0)
    known.send("2")  # a process of the run, but no number
    threads += [threading.Thread(target=call, args=(index, multihost._report)) for index in present]
    for thread in threads[1:]:
        thread.start()
    for thread in threads:
        thread.join(60)
    for line in (*strangers, forged, known):
        line.close()
    assert found == dict.fromkeys((0, *present), missing)
