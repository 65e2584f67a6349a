"""Who is blamed for what, by a judge that is a function; and the line between watchers, with sockets."""

import dataclasses
import json
import signal
import socket
import threading
import time

import pytest

from kanana_jax.errors import ConfigError
from kanana_jax.parallel import heartbeat, watch
from kanana_jax.parallel.line import Line, Listener, secret_of
from kanana_jax.parallel.watch import Report, WatchConfig, judge

SECRET = b"what the watchers share"
CONFIG = WatchConfig(timeout=10, stall_timeout=100, setup_timeout=1000, join_timeout=50, settle=2)
NOW = 5000.0
WELL = Report("host", 7, heard=NOW - 1, beat_age=0.5, marks=40, step=12, doing=heartbeat.STEP, moved=NOW - 1)


def _judge(began=0.0, **changes):
    """Four processes that are well, but for `p2=dict(…)`; `p3=None` has not come."""
    named = {i: changes.get(f"p{i}", {}) for i in range(4)}
    reports = {i: dataclasses.replace(WELL, **change) for i, change in named.items() if change is not None}
    return judge(reports, 4, began, NOW, CONFIG)


def _ended(code, ago, line=""):
    return dict(exit_code=code, exited=NOW - ago, last_line=line)


def test_all_well_and_all_done():
    assert _judge() is None
    assert _judge(p2=_ended(0, 5)) is None  # the others follow
    assert _judge(**{f"p{i}": _ended(0, 1) for i in range(4)}).code == watch.DONE


def test_the_killed_one_is_named_although_others_fell_with_it_and_were_heard_of_first():
    fallen = _ended(1, 1.5, "kanana: Gloo: connection closed by peer")
    fall = dict(p0=fallen, p1=fallen, p3=_ended(-signal.SIGABRT, 1.6))
    assert _judge(**fall) is None  # not yet settled
    verdict = _judge(**fall, p2=_ended(-signal.SIGKILL, 1))
    assert verdict.code == 1 and verdict.text.startswith("process 2 of 4 (host) was killed by SIGKILL")
    assert "process 0, 1, 3 ended after it" in verdict.text
    alone = _judge(p2=_ended(-signal.SIGSEGV, 3))
    assert alone.text.startswith("process 2 of 4 (host) was killed by SIGSEGV") and "after it" not in alone.text


def test_of_equal_failures_the_first_is_named_with_its_last_words():
    verdict = _judge(p1=_ended(1, 2.5, "kanana: the disk is full"), p3=_ended(1, 2.4, "kanana: Gloo"))
    assert "process 1 of 4" in verdict.text and "the disk is full" in verdict.text and "Gloo" not in verdict.text


def test_a_bad_config_and_a_preemption_keep_their_exit_codes():
    assert _judge(p0=_ended(2, 3)).code == watch.BAD_CONFIG
    assert _judge(p0=_ended(75, 3)) is None  # the others are saving
    assert _judge(p0=_ended(75, 11)).code == watch.PREEMPTED  # for as long as a sign of life may take
    assert _judge(**{f"p{i}": _ended(75, 1) for i in range(4)}).code == watch.PREEMPTED


@pytest.mark.parametrize(
    "changes, words",
    [
        (dict(p3=dict(heard=NOW - 11)), ["process 3 (host, pid 7) is not heard from for 11 s"]),
        (dict(p1=dict(beat_age=11)), ["process 1 (host, pid 7) is without a sign of life for 11 s"]),
        (
            {f"p{i}": dict(moved=NOW - 101, **(dict(marks=39, doing="batch") if i == 2 else {})) for i in range(4)},
            [
                "no process made progress for 101 s",
                "process 2 (host, pid 7) is at step 12 (batch) while others are further",
            ],
        ),
        ({f"p{i}": dict(moved=NOW - 101) for i in range(4)}, ["all processes are at step 12 (step)"]),
        (dict(p3=None), ["process 3 of 4 did not come within"]),
    ],
)
def test_who_is_blamed(changes, words):
    verdict = _judge(**changes)
    assert verdict.code == 1 and all(word in verdict.text for word in words), verdict.text


def test_outside_of_training_there_is_more_patience():
    slow = dict(doing=heartbeat.COMPILE, moved=NOW - 101, beat_age=11)
    assert _judge(p0=slow, **{f"p{i}": dict(moved=NOW - 101) for i in (1, 2, 3)}) is None
    slow |= dict(moved=NOW - 1001)
    assert "1001 s" in _judge(p0=slow, **{f"p{i}": dict(moved=NOW - 1001) for i in (1, 2, 3)}).text
    assert _judge(began=NOW - 49, p3=None) is None


def test_preparing_data_counts_as_progress_and_as_no_mark():
    hub = watch.Hub.__new__(watch.Hub)
    hub._reports = {}
    report = dict(host="h", pid=1, heard=0.0, beat_age=0.0, marks=3, exit_code=None)
    for now, count in ((10.0, 1), (20.0, 1), (30.0, 2)):
        hub._note(0, Report(**report, step=count, doing=heartbeat.PREPARE, moved=now), now)
        assert hub._reports[0].moved == (30.0 if count == 2 else 10.0) and not hub._reports[0].training


def _said(index, **more):
    said = dict(id=index, host=f"h{index}", pid=1, beat_age=0.0, marks=1, step=1, doing="step", exit_code=None)
    return said | dict(last_line="") | more


def _port():
    with socket.socket() as s:
        s.bind(("", 0))
        return s.getsockname()[1]


def _until_verdict(link, said, results):
    while (verdict := link.exchange(said)) is None:
        time.sleep(0.02)
    results[said["id"]] = verdict
    link.close()


def test_one_verdict_reaches_all():
    config, port, results = WatchConfig(timeout=5, settle=0.1), _port(), {}
    hub = watch.Hub(port, 3, config)
    reports = [_said(0), _said(1, exit_code=-9), _said(2)]
    threads = [
        threading.Thread(target=_until_verdict, args=(watch.Link("localhost", port, config), said, results))
        for said in reports
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    hub.wait(20)
    assert set(results) == {0, 1, 2} and len(set(results.values())) == 1
    assert "process 1 of 3 (h1) was killed by SIGKILL" in results[0].text


def test_a_silent_watcher_is_named_and_a_silent_judge_too():
    config, port, results = WatchConfig(timeout=0.5), _port(), {}
    hub = watch.Hub(port, 2, config)
    gone = watch.Link("localhost", port, config)
    assert gone.exchange(_said(1)) is None
    gone.close()
    _until_verdict(watch.Link("localhost", port, config), _said(0), results)
    assert "process 1 (h1, pid 1) is not heard from" in results[0].text
    hub.wait(20)

    listener = Listener("127.0.0.1", port, config.secret)  # a judge that answers once and is heard no more
    link = watch.Link("localhost", port, config)
    answering = threading.Thread(target=_answer_once, args=(listener,))
    answering.start()
    _until_verdict(link, _said(1), results)
    answering.join(20)
    listener.close()
    assert results[1].code == 1 and "process 0 (localhost) is not heard from" in results[1].text


def _answer_once(listener):
    while not (said := listener.poll(0.1)):
        pass
    listener.tell(said[0][0], {})


def test_nobody_listens(monkeypatch):
    monkeypatch.delenv(heartbeat.PIPE, raising=False)
    heartbeat.start()
    heartbeat.Marks()(1, heartbeat.STEP)
    assert "heartbeat" not in {thread.name for thread in threading.enumerate()}


@pytest.fixture
def hub():
    """A hub of two processes, of which process 0 is well, and what a stranger may find out: the port."""
    config, port = WatchConfig(timeout=60, settle=0.1, secret=SECRET), _port()
    made, link = watch.Hub(port, 2, config), watch.Link("localhost", port, config)
    assert link.exchange(_said(0)) is None
    yield port, config, link
    other = watch.Link("localhost", port, config)
    for line, said in ((link, _said(0, exit_code=0)), (other, _said(1, exit_code=0))):
        line.exchange(said)
    results = {}
    for line, said in ((link, _said(0, exit_code=0)), (other, _said(1, exit_code=0))):
        _until_verdict(line, said, results)
    made.wait(20)
    assert {v.code for v in results.values()} == {watch.DONE}, results


def _forged(port, secret, *said):
    line = Line.connect(("localhost", port), secret, 1.0)
    for value in said:
        line.send(value)
    return line


LIE = _said(1, exit_code=2, last_line="a lie")
SPOKEN = (
    b"5\n",
    b"\0" * 70_000,
    b"GET / HTTP/1.1\r\n\r\n",
    b"[" * 60_000 + b"\n",
    json.dumps(LIE).encode() + b"\n",
    b"0" * 32 + b"\n" + b"0" * 64 + b" " + json.dumps(LIE).encode() + b"\n",
    b"0" * 31,
    b"",
)


def test_strangers_neither_end_a_run_nor_forge_its_end(hub):
    port, config, link = hub
    kept = []
    for spoken in SPOKEN:
        stranger = socket.create_connection(("localhost", port))
        stranger.sendall(spoken)
        kept.append(stranger)  # some of them never hang up
    with pytest.raises(OSError):
        for _ in range(100):
            _forged(port, b"another secret, of no use", LIE).receive()
    heard = Line.connect(("localhost", port), SECRET, 1.0)
    heard.send(_said(1))
    again = Line.connect(("localhost", port), b"", 1.0)  # says again what it has heard another say
    again.socket.sendall(
        heard._seal("peer", 0, json.dumps(_said(1)).encode()) + b" " + json.dumps(_said(1)).encode() + b"\n"
    )
    for _ in range(10):
        assert link.exchange(_said(0)) is None
        time.sleep(0.02)
    for stranger in (*kept, heard, again):
        stranger.close()


@pytest.mark.parametrize(
    "wrong",
    [
        dict(id=2), dict(id=-1), dict(id=True), dict(id="1"), dict(pid=None), dict(beat_age="x"), dict(beat_age=-1.0),
        dict(beat_age=1e999), dict(marks=1.5), dict(step=-3), dict(doing="nothing"), dict(doing=[]), dict(exit_code="2"),
        dict(exit_code=10**40), dict(host="h" * 5000), dict(last_line=["x"]), dict(more=1), None, [], 7,
    ],
)  # fmt: skip
def test_a_report_of_another_form_is_refused(wrong):
    said = LIE | wrong if isinstance(wrong, dict) else wrong
    with pytest.raises(ValueError):
        watch.read_report(json.loads(json.dumps(said)), 2, NOW)
    assert watch.read_report(LIE | dict(last_line="a\x1b[31m\nb"), 2, NOW)[1].last_line == "a [31m b"


def test_a_hub_outlives_reports_of_another_form_and_any_number_of_callers(hub):
    port, config, link = hub
    for wrong in ({}, {"id": 1}, LIE | {"id": 9}, "x" * 8000):
        _forged(port, SECRET, wrong).close()
    many = [socket.create_connection(("localhost", port)) for _ in range(300)]
    assert link.exchange(_said(0)) is None
    again = watch.Link("localhost", port, config)
    assert again.exchange(_said(1)) is None
    for one in many:
        one.close()
    assert link.exchange(_said(0)) is None


def test_a_stranger_in_the_place_of_the_judge_is_not_believed():
    config, port = WatchConfig(timeout=5, join_timeout=0.3, secret=SECRET), _port()
    listener = Listener("127.0.0.1", port, b"the secret of another run")
    link, results = watch.Link("localhost", port, config), {}
    done = threading.Event()

    def lie():
        while not done.is_set():
            listener.poll(0.05)
            for line in list(listener._strangers):
                listener.tell(line, {"code": 0, "text": "all is done"})

    liar = threading.Thread(target=lie)
    liar.start()
    _until_verdict(link, _said(1), results)
    done.set()
    liar.join(20)
    listener.close()
    assert results[1].code == watch.FAILED and "or has another KANANA_SECRET" in results[1].text


def test_a_secret_is_long():
    with pytest.raises(ConfigError, match="16 characters"):
        secret_of({"KANANA_SECRET": "short"})
    assert secret_of({}) == b"" and secret_of({"KANANA_SECRET": f" {SECRET.decode()}\n"}) == SECRET
    assert SECRET.decode() not in repr(WatchConfig(secret=SECRET))
