"""Batching: requests of many clients that wait at the same time are answered in one batch.

One thread runs the model. New requests wait while it generates; then those with the same sampling settings form the
next batch, of up to `rows`. Each answer is delivered when it ends, but a batch only ends with its longest answer.
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
_LEAST_NEW = 16  # smallest number of new tokens for which a program is compiled


@dataclasses.dataclass(frozen=True)
class End:
    """The end of an answer.

    Attributes:
      text: the whole text.
      reason: `stop`: the model or a stop text ended it; `length`: it was truncated; `tool_calls`: it has calls.
      tokens: number of generated tokens.
      calls: function calls in addition to the text.
    """

    text: str
    reason: Literal["stop", "length", "tool_calls"]
    tokens: int
    calls: tuple[Call, ...] = ()


Event = str | End | Exception


@dataclasses.dataclass(eq=False)
class Job:
    """One answer to generate.

    Attributes:
      prompt: ids of the prompt, int32 `[T]`.
      tokens: maximum number of new tokens.
      stops: texts that end the answer and are not part of it.
      caller, tools: for function calls; None: the answer may not call functions.
      events: parts of the text if `stream`, then `End` or an error.
      cancelled: set when nobody waits for the answer any more.
      shown: text that has been sent so far.
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
        """The text of the new ids, and whether a stop text has ended it.

        Args:
          more: whether generation continues; text that may belong to a stop text or a call is then held back.
        """
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
        """Sends the part of a text that has not been sent yet, if the answer is streamed."""
        if self.stream and text.startswith(self.shown) and len(text) > len(self.shown):
            self.events.put(text[len(self.shown) :])
            self.shown = text


def _begun(text: str, stops: Sequence[str]) -> int:
    """The number of characters at the end of a text that may be the beginning of a stop text."""
    sizes = (n for stop in stops for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n]))
    return max(sizes, default=0)


class Batches:
    """The queue of requests, and the thread that runs the model.

    Args:
      rows: maximum number of answers per batch.
      waiting: maximum number of answers that wait.
      seed: seed of sampling, to which the number of the batch is added.
    """

    def __init__(self, session: Session, rows: int = 8, waiting: int = 256, seed: int = 0):
        self._session, self._rows, self._most, self._seed = session, rows, waiting, seed
        self._waiting: deque[Job] = deque()
        self._changed = threading.Condition()
        self._length = session.model.architecture.max_seq_len
        threading.Thread(target=self._run, name="model", daemon=True).start()

    def submit(self, jobs: Sequence[Job]) -> None:
        """Queues jobs for the model.

        Raises:
          BadRequest: prompt and answer together exceed the context length, or too many requests wait.
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
        """The next batch: the job that has waited longest, and those that can be answered together with it."""
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
        """Whether a job can join a batch: it has the same settings, and prompts and answers fit into the context."""
        alike = job.sampling == batch[0].sampling and (
            job.sampling.temperature == 0 or job.seed == batch[0].seed is None
        )
        # A grammar is consulted at every token, which would slow down answers without one.
        alike = alike and (job.tools is None) == (batch[0].tools is None)
        together = [*batch, job]
        return alike and max(len(j.prompt) for j in together) + max(j.tokens for j in together) <= self._length

    def _answer(self, batch: list[Job], number: int) -> None:
        session, longest = self._session, max(len(job.prompt) for job in batch)
        # Rounded to powers of two, so that few programs are compiled.
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
                # If the answer was truncated, an incomplete call at its end is not shown as text.
                job.show(reply.content)
                reason = "length" if cut else "tool_calls" if reply.calls else "stop"
                job.events.put(End(reply.content, reason, count, reply.calls))
                continue
            job.show(text)
            job.events.put(End(text, "length" if cut else "stop", count))
