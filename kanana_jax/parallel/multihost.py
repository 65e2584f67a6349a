"""Start-up of a run's processes on several hosts, and their communication outside the training step."""

import atexit
import contextlib
import dataclasses
import json
import os
import sys
import time
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from kanana_jax.errors import ConfigError, UserError
from kanana_jax.parallel.line import Line, Listener, interface_of


@dataclasses.dataclass(frozen=True)
class ProcessConfig:
    """The processes of a run, and this process's place among them.

    Attributes:
      coordinator: `host:port` of process 0; empty for a single process, and on TPU pods, where JAX finds it.
      num_processes, process_id: as for `jax.distributed.initialize`; −1: determined by JAX.
      timeout_s: seconds to wait for all processes.
      secret: secret that the processes share (`parallel/line.py`).
    """

    coordinator: str = ""
    num_processes: int = -1
    process_id: int = -1
    timeout_s: int = 300
    secret: bytes = dataclasses.field(default=b"", repr=False)


def start(config: ProcessConfig) -> None:
    """Joins the other processes; must be called before JAX initialises a device.

    Raises:
      UserError: not all processes have come in time; the message names the missing ones.
      ConfigError: the coordinator is not `host:port`, or the process id is out of range.
    """
    if config.coordinator and config.num_processes > 1:
        _roll_call(config)
    try:
        jax.distributed.initialize(
            coordinator_address=config.coordinator or None,
            initialization_timeout=config.timeout_s,
            num_processes=config.num_processes if config.num_processes >= 0 else None,
            process_id=config.process_id if config.process_id >= 0 else None,
        )
    except Exception as error:
        raise UserError(
            f"process {config.process_id} of {config.num_processes} could not join at {config.coordinator} within "
            f"{config.timeout_s} s ({str(error).strip().splitlines()[0][:200]}): "
            "start the missing processes, or free the port"
        ) from error


def _roll_call(config: ProcessConfig) -> None:
    """Waits until all processes have reported to process 0, on the port that JAX uses afterwards.

    JAX would end a process if another is late, so `jax.distributed` is only started when all are present.
    """
    host, _, port = config.coordinator.rpartition(":")
    if not port.isdigit() or not 0 <= config.process_id < config.num_processes:
        raise ConfigError("--coordinator must be HOST:PORT, and --process-id one of 0 … --num-processes − 1")
    deadline = time.monotonic() + config.timeout_s
    missing = (
        _receive(host, int(port), config, deadline)
        if config.process_id == 0
        else _report(host, int(port), config, deadline)
    )
    if missing:
        raise UserError(
            f"process {missing} of {config.num_processes} did not reach {config.coordinator} within "
            f"{config.timeout_s} s: look at its log, or start it"
        )


def _receive(host: str, port: int, config: ProcessConfig, deadline: float) -> str:
    """Process 0: waits for all; returns the missing processes as text ('' if none), and sends it to those present."""
    present: dict[int, Line] = {}
    listener = Listener(interface_of(host), port, config.secret)
    with contextlib.closing(listener):
        while len(present) < config.num_processes - 1 and (left := deadline - time.monotonic()) > 0:
            for line, said in listener.poll(min(left, 1.0)):
                if type(said) is int and 0 < said < config.num_processes:
                    present[said] = line
            present = {index: line for index, line in present.items() if line in listener.known}
        absent = [str(i) for i in range(1, config.num_processes) if i not in present]
        for line in present.values():
            listener.tell(line, ", ".join(absent))
    return ", ".join(absent)


def _report(host: str, port: int, config: ProcessConfig, deadline: float) -> str:
    """Other processes: report to process 0, and return its answer, the missing processes."""
    while time.monotonic() < deadline:
        with (
            contextlib.suppress(OSError),
            contextlib.closing(Line.connect((host, port), config.secret, 5.0)) as line,
        ):
            line.send(config.process_id)
            line.socket.settimeout(max(deadline - time.monotonic(), 0.01) + 10)
            for answer in line.receive():
                return str(answer)
        time.sleep(0.2)
    return "0"


def leave(code: int) -> None:
    """Makes a failed process end immediately at exit, with this exit code.

    JAX would wait at exit for all other processes, which may be in a collective that waits for this one.
    """

    def end() -> None:  # runs before the functions that JAX has registered
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

    if jax.process_count() > 1:
        atexit.register(end)


def barrier(name: str) -> None:
    """Waits until every process has reached this barrier."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def merge_states(local: dict[str, Any]) -> dict[str, Any]:
    """The union of all processes' JSON dicts, returned on all of them; values of shared keys must be equal."""
    if jax.process_count() == 1:
        return local
    data = np.frombuffer(json.dumps(local).encode(), np.uint8)
    sizes = multihost_utils.process_allgather(np.array([len(data)]))
    padded = np.zeros(int(sizes.max()), np.uint8)
    padded[: len(data)] = data
    merged: dict[str, Any] = {}
    for row, size in zip(multihost_utils.process_allgather(padded), np.asarray(sizes).reshape(-1)):
        merged |= json.loads(bytes(np.asarray(row, np.uint8)[: int(size)]))
    return merged
