"""Keeping a run on TPUs alive: create, start, and again after pre-emptions and crashes, on the same workdir.

`decide` is a pure function of what is seen; `supervise` asks `gcloud` and does what it says. All that must be known is
at `gcloud` and on the hosts, so the command can be stopped and started again, also on another laptop.
"""

import dataclasses
import time
from collections.abc import Callable
from typing import Literal

from kanana_jax.errors import UserError

from . import gcloud
from .gcloud import Job

DONE, BAD_CONFIG, PREEMPTED = 0, 2, 75
# States of a queued resource (Cloud TPU documentation, "Manage queued resources"), by what they mean here.
COMING = ("ACCEPTED", "WAITING_FOR_RESOURCES", "CREATING", "PROVISIONING")
GOING = ("SUSPENDING", "DELETING")

Action = Literal["create", "wait", "start", "recreate", "done", "give up"]
Call = Callable[[list[str]], tuple[int, str]]


@dataclasses.dataclass(frozen=True)
class Policy:
    """Responses to failures.

    Attributes:
      retries: crashes in a row that are borne; pre-emptions cost none.
      backoff, longest: seconds before the first retry, doubled each time up to `longest`.
      healthy: seconds after which a run counts as having been well, so that its crash is the first again.
      poll: seconds between two looks.
      unreachable: looks in a row at which an ACTIVE resource may not answer before it counts as pre-empted.
    """

    retries: int = 5
    backoff: float = 30.0
    longest: float = 1800.0
    healthy: float = 3600.0
    poll: float = 30.0
    unreachable: int = 10


@dataclasses.dataclass(frozen=True)
class Seen:
    """The state of things: the resource's state ('' for none), and its first host's run.

    `run` is `running`, `none`, `exit CODE`, or '' where no host answers.
    """

    state: str
    run: str = ""
    silent: int = 0


@dataclasses.dataclass(frozen=True)
class Decision:
    action: Action
    why: str
    crash: bool = False
    exit_code: int = DONE


def decide(seen: Seen, policy: Policy) -> Decision:
    """The next action; the caller counts crashes and decides on retries."""
    if not seen.state:
        return Decision("create", "there are no TPUs")
    if seen.state in COMING or seen.state in GOING:
        return Decision("wait", seen.state)
    if seen.state == "SUSPENDED":
        return Decision("recreate", "pre-empted")
    if seen.state == "FAILED":
        return Decision("recreate", "the TPUs could not be had", crash=True)
    if seen.state != "ACTIVE":
        return Decision("wait", f"unknown state {seen.state}")
    if not seen.run:
        if seen.silent >= policy.unreachable:
            return Decision("recreate", "pre-empted: the hosts do not answer")
        return Decision("wait", "the hosts do not answer")
    if seen.run == "running":
        return Decision("wait", "running")
    if seen.run == "none":
        return Decision("start", "the TPUs are there")
    code = int(seen.run.split()[1])
    if code == DONE:
        return Decision("done", "the run is finished")
    if code == BAD_CONFIG:
        return Decision("give up", "the config is refused: see the log", exit_code=BAD_CONFIG)
    if code == PREEMPTED:
        return Decision("start", "stopped on request and saved")
    return Decision("start", f"crashed with exit code {code}", crash=True)


def look(job: Job, call: Call, silent: int) -> Seen:
    """Asks for the state, and where it is ACTIVE the first host for its run."""
    code, state = call(gcloud.describe(job))
    if code:
        if "NOT_FOUND" in state or "not found" in state:
            return Seen("")
        raise UserError(f"`{' '.join(gcloud.describe(job)[:6])}` failed: {(state.strip().splitlines() or ['?'])[-1]}")
    state = state.strip()
    if state != "ACTIVE":
        return Seen(state)
    code, text = call(gcloud.ssh(job, gcloud.result(), everywhere=False))
    lines = [line for line in text.splitlines() if line == "running" or line == "none" or line.startswith("exit ")]
    if code or not lines:
        return Seen(state, silent=silent + 1)
    return Seen(state, lines[-1])


def supervise(
    job: Job,
    policy: Policy,
    call: Call,
    start: Callable[[], None],
    say: Callable[[str], None],
    *,
    keep: bool = False,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> int:
    """Looks and acts until the run is done or given up; returns its exit code.

    Args:
      call: runs a command; returns its exit code and output.
      start: sets up the hosts and starts the run; raises UserError where that fails.
      keep: leave the TPUs (and their bill) when all is over.
    """
    crashes = _Crashes(policy, say, sleep, clock)
    silent, failures, last, started = 0, 0, "", False
    while True:
        try:
            seen = look(job, call, silent)
        except UserError as error:  # the laptop's network, mostly
            failures += 1
            if failures > policy.unreachable:
                raise
            say(f"{error}; looking again in {policy.poll:g} s")
            sleep(policy.poll)
            continue
        silent, failures = seen.silent, 0
        decision = decide(seen, policy)
        if started and seen.run == "none":
            decision = Decision("start", "the worker is gone without a result", crash=True)
        if (line := f"{decision.action}: {decision.why}") != last:
            say(line)
        last = line
        if decision.crash and not crashes.borne():
            decision = Decision("give up", "too many crashes", exit_code=1)
        if decision.action in ("create", "recreate"):
            if decision.action == "recreate":
                _must(call, gcloud.delete(job))
            _must(call, gcloud.create(job))
            silent, started = 0, False
        elif decision.action == "start":
            try:
                start()
                started = True
                crashes.started()
            except UserError as error:  # hosts that vanished meanwhile are seen at the next look
                say(f"the run could not be started: {error}")
                started = False
                if not crashes.borne():
                    decision = Decision("give up", "too many crashes", exit_code=1)
        if decision.action in ("done", "give up"):
            if not keep:
                _must(call, gcloud.delete(job))
            return decision.exit_code
        last = last if decision.action == "wait" else ""
        sleep(policy.poll)


class _Crashes:
    """Crashes in a row, each followed by a longer pause."""

    def __init__(
        self,
        policy: Policy,
        say: Callable[[str], None],
        sleep: Callable[[float], None],
        clock: Callable[[], float],
    ):
        self._policy, self._say, self._sleep, self._clock = policy, say, sleep, clock
        self._count, self._began = 0, clock()

    def started(self) -> None:
        self._began = self._clock()

    def borne(self) -> bool:
        """Counts one and pauses; False when there were too many."""
        policy = self._policy
        self._count = 1 if self._clock() - self._began > policy.healthy else self._count + 1
        if self._count > policy.retries:
            self._say(f"give up: crash {self._count} in a row")
            return False
        pause = min(policy.backoff * 2 ** (self._count - 1), policy.longest)
        self._say(f"crash {self._count}, {policy.retries} are borne: waiting {pause:g} s")
        self._sleep(pause)
        return True


def _must(call: Call, command: list[str]) -> None:
    code, text = call(command)
    if code:
        last = (text.strip().splitlines() or ["no message"])[-1]
        raise UserError(f"`{' '.join(command[:6])}` failed: {last}")
