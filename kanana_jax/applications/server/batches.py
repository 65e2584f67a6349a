"""Requests of many clients answered together: those that wait are one batch of the model.

One thread runs the model. While it writes, further requests wait; then those that sample alike are taken together, up
to `rows`. An answer ends by itself, but a batch as a whole only with its longest one.
"""

import dataclasses
import logging
import queue
import threading
from collections import deque
from collections.abc import Sequence
from typing import Literal

import numpy as np

from kanana_jax.applications.function_calling import Caller, Tools
from kanana_jax.applications.server.asked import BadRequest
from kanana_jax.data.tokens import calls
from kanana_jax.data.tokens.calls import Call
from kanana_jax.errors import UserError
from kanana_jax.inference.sampling import SamplingConfig
from kanana_jax.inference.session import Session

log = logging.getLogger("kanana")
_LEAST_NEW = 16  # tokens for which a program is compiled


@dataclasses.dataclass(frozen=True)
class End:
    """The end of an answer.

    Attributes:
      text: all of it.
      reason: `stop`: the model or a stop text ended it; `length`: it was cut; `tool_calls`: it asks for calls.
      tokens: that the model has written.
      calls: of functions, beside the text.
    """

    text: str
    reason: Literal["stop", "length", "tool_calls"]
    tokens: int
    calls: tuple[Call, ...] = ()


Event = str | End | Exception


@dataclasses.dataclass(eq=False)
class Job:
    """One answer to be written.

    Attributes:
      caller, tools: of functions that it may call; None: it may not.
      events: what is written, part by part where it is asked for, then `End` or an error.
      cancelled: nobody waits for it any more.
    """

    prompt: np.ndarray
    tokens: int
    sampling: SamplingConfig
    seed: int | None = None
    stops: tuple[str, ...] = ()
    stream: bool = False
    strip_thinking: bool = False
    caller: Caller | None = None
    tools: Tools | None = None
    events: "queue.SimpleQueue[Event]" = dataclasses.field(default_factory=queue.SimpleQueue)
    cancelled: threading.Event = dataclasses.field(default_factory=threading.Event)
    shown: str = ""

    def written(self, session: Session, new: np.ndarray, more: bool) -> tuple[str, bool]:
        """The text so far, and whether a stop text has ended it."""
        ids = new[: self.tokens]
        if self.caller is not None and self.tools is not None:
            text = self.caller.text_of(self.prompt, ids, more=more)
            text = text[: calls.begins(text, self.tools.form)] if more else text
        else:
            text = session.text_of(self.prompt, ids, strip_thinking=self.strip_thinking, more=more)
        places = [at for stop in self.stops if (at := text.find(stop)) >= 0]
        if places:
            return text[: min(places)], True
        return (text[: len(text) - _begun(text, self.stops)] if more else text), False

    def show(self, text: str) -> None:
        """Sends what a text adds to what has been sent."""
        if self.stream and text.startswith(self.shown) and len(text) > len(self.shown):
            self.events.put(text[len(self.shown) :])
            self.shown = text


def _begun(text: str, stops: Sequence[str]) -> int:
    """How many characters at the end of a text may be the beginning of a stop text."""
    sizes = (n for stop in stops for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n]))
    return max(sizes, default=0)


class Batches:
    """The model's thread.

    Args:
      rows: the most answers written at once.
      waiting: the most that wait.
      seed: of sampling; each batch draws anew.
    """

    def __init__(self, session: Session, rows: int = 8, waiting: int = 256, seed: int = 0):
        self._session, self._rows, self._most, self._seed = session, rows, waiting, seed
        self._waiting: deque[Job] = deque()
        self._changed = threading.Condition()
        self._length = session.model.architecture.max_seq_len
        threading.Thread(target=self._run, name="model", daemon=True).start()

    def submit(self, jobs: Sequence[Job]) -> None:
        """Lets jobs wait for the model.

        Raises:
          BadRequest: a prompt and an answer beyond the model's length; or too many wait.
        """
        for job in jobs:
            if len(job.prompt) + job.tokens > self._length:
                raise BadRequest(
                    f"a prompt of {len(job.prompt)} tokens and an answer of {job.tokens} exceed the model's "
                    f"{self._length}: shorten the prompt, or lower max_tokens"
                )
        with self._changed:
            if len(self._waiting) + len(jobs) > self._most:
                raise BadRequest(f"{len(self._waiting)} requests wait already: try again later", 429)
            self._waiting += jobs
            self._changed.notify()

    def _run(self) -> None:
        number = 0
        while True:
            batch = self._next()
            try:
                self._answer(batch, number)
            except UserError as error:
                self._fail(batch, BadRequest(str(error)))
            except Exception as error:
                log.exception("a batch of %d requests failed", len(batch))
                self._fail(batch, error)
            number += 1

    def _fail(self, batch: list[Job], error: Exception) -> None:
        for job in batch:
            job.events.put(error)

    def _next(self) -> list[Job]:
        """The job that waits longest, with those that can be answered together with it."""
        with self._changed:
            while not self._waiting:
                self._changed.wait()
            batch, others = [self._waiting.popleft()], []
            while self._waiting:
                job = self._waiting.popleft()
                together = len(batch) < self._rows and self._fits(batch, job)
                (batch if together else others).append(job)
            self._waiting.extend(others)
        return batch

    def _fits(self, batch: list[Job], job: Job) -> bool:
        """Whether a job samples as those of a batch, and prompts and answers together are within the model's length."""
        alike = job.sampling == batch[0].sampling and (
            job.sampling.temperature == 0 or job.seed == batch[0].seed is None
        )
        alike = alike and (job.tools is None) == (batch[0].tools is None)  # a grammar is asked at every token
        together = [*batch, job]
        return alike and max(len(j.prompt) for j in together) + max(j.tokens for j in together) <= self._length

    def _answer(self, batch: list[Job], number: int) -> None:
        session, longest = self._session, max(len(job.prompt) for job in batch)
        # Few lengths and numbers of rows, so that few programs are compiled.
        wanted = max(_LEAST_NEW, 1 << (max(job.tokens for job in batch) - 1).bit_length())
        rows = 1 << (len(batch) - 1).bit_length()
        prompts = [job.prompt for job in batch] + [batch[-1].prompt] * (rows - len(batch))
        seed = batch[0].seed if batch[0].seed is not None else (self._seed + number) % 2**32

        def look(row: int, new: np.ndarray) -> bool:
            if row >= len(batch):
                return True
            job = batch[row]
            if job.cancelled.is_set():
                return True
            ended = False
            if job.stream or job.stops:
                text, ended = job.written(session, new, True)
                job.show(text)
            return ended or len(new) >= job.tokens

        every = 4 if any(job.stream for job in batch) else 16
        new_tokens = min(wanted, self._length - longest)
        caller = batch[0].caller
        constraints = [
            job.caller.constraint(job.tools, job.prompt) if job.caller and job.tools else None for job in batch
        ]
        constraints += [None] * (rows - len(batch))
        allowed = None if caller is None else caller.allowed(constraints)
        outputs = session.continue_ids(prompts, new_tokens, batch[0].sampling, seed, look, every, allowed)
        for job, new in zip(batch, outputs):
            text, stopped = job.written(session, new, False)
            cut = not stopped and len(new) >= job.tokens
            count = min(len(new), job.tokens)
            if job.tools is not None:
                reply = job.tools.read(text)
                # Half a call at the end of an answer that was cut is no text that anyone wants to read.
                job.show(reply.content)
                reason = "length" if cut else "tool_calls" if reply.calls else "stop"
                job.events.put(End(reply.content, reason, count, reply.calls))
                continue
            job.show(text)
            job.events.put(End(text, "length" if cut else "stop", count))
