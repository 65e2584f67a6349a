"""Annotators that label documents 0–5: an endpoint with OpenAI's protocol, or a local model."""

import concurrent.futures
import dataclasses
import os
import threading
from collections.abc import Callable, Sequence
from typing import Any

from kanana_jax import endpoint as http
from kanana_jax.data.quality import prompts
from kanana_jax.data.read.record import Record
from kanana_jax.errors import ConfigError, UserError

Annotator = Callable[[Sequence[Record]], "list[int | None]"]
"""Documents → labels; None where none could be had."""

Keep = Callable[[Record, "int | None", str], None]
"""Takes a document's label and, where there is none, the reason."""

# If this many documents are refused before the first is accepted, the request is wrong, not the documents.
_ALL_REFUSED = 10


@dataclasses.dataclass(frozen=True)
class EndpointConfig:
    """An OpenAI-compatible endpoint.

    Attributes:
      url: base URL, without `/chat/completions`; `https://`, or `http://` on this machine.
      model: the endpoint's name of the model.
      key_variable: environment variable that holds the API key; empty sends none.
      max_requests, max_tokens: budget of one run, 0 for no limit; tokens as reported by the endpoint.
      max_characters: characters of a document that are shown.
      concurrency: number of concurrent requests.
      timeout: seconds per request, until the last byte of the answer.
      attempts: attempts per request, 1, 2, 4 … seconds apart, or as long as the endpoint asks for.
      allow_plain_http: whether `http://` to other machines is allowed.
    """

    url: str
    model: str
    key_variable: str = "OPENAI_API_KEY"
    max_requests: int = 10_000
    max_tokens: int = 0
    max_characters: int = 3000
    concurrency: int = 8
    timeout: float = 120.0
    attempts: int = 5
    allow_plain_http: bool = False

    def __post_init__(self):
        if not self.url.startswith(("http://", "https://")):
            raise ValueError("url must begin with http:// or https://")
        if min(self.concurrency, self.attempts) < 1 or self.timeout <= 0 or min(self.max_requests, self.max_tokens) < 0:
            raise ValueError("concurrency, attempts and timeout must be positive, a budget not negative")
        http.check_url(self.url, self.allow_plain_http)


class Endpoint:
    """An `Annotator` that asks an endpoint at temperature 0 and hands over each answer as it arrives.

    Args:
      wait: sleeps between two attempts of a request; default: sleeps, but wakes up when the run has to end.
    """

    def __init__(self, config: EndpointConfig, wait: Callable[[float], object] | None = None):
        self._config, self._wait = config, wait
        self._requests, self._tokens, self._taken = 0, 0, False
        self._lock = threading.Lock()

    def __call__(self, batch: Sequence[Record], keep: Keep = lambda *_: None) -> list[int | None]:
        """Labels documents, in order.

        A document that the endpoint refuses (too long, filtered) gets None and does not affect the others.

        Args:
          keep: called with each answer as it arrives, including requests in flight when the run has to end.

        Raises:
          ConfigError: the API key is missing.
          UserError: the endpoint refuses requests or is unreachable, or the budget is used up.
        """
        config = self._config
        if config.max_requests and self._requests + len(batch) > config.max_requests:
            raise UserError(f"the budget of {config.max_requests} requests is used up: raise max_requests to continue")
        if config.max_tokens and self._tokens >= config.max_tokens:
            raise UserError(f"the budget of {config.max_tokens} tokens is used up: raise max_tokens to continue")
        service, stop = self._service(), threading.Event()
        labels: list[int | None] = [None] * len(batch)
        refused: list[tuple[Record, str]] = []
        ended: list[Exception] = []

        def take(future: concurrent.futures.Future[tuple[int | None, int]], place: int) -> None:
            error = future.exception()
            if isinstance(error, http.Refused):
                refused.append((batch[place], error.reason))
                if not self._taken and len(refused) == _ALL_REFUSED:
                    ended.append(error)
            elif isinstance(error, Exception):
                ended.extend([] if isinstance(error, _Stopped) else [error])
            else:
                labels[place], tokens = future.result()
                self._taken, self._tokens = True, self._tokens + tokens
                keep(batch[place], labels[place], "")

        with concurrent.futures.ThreadPoolExecutor(config.concurrency) as pool:
            waiting = {pool.submit(self._ask, service, record, stop): i for i, record in enumerate(batch)}
            try:
                for future in concurrent.futures.as_completed(list(waiting)):
                    take(future, waiting.pop(future))
                    if ended:
                        stop.set()
            finally:  # even if the run is stopped: requests in flight are paid for, so their answers are kept
                stop.set()
                pool.shutdown()
                for future, place in waiting.items():
                    take(future, place)
        for record, reason in refused if self._taken or not ended else ():
            keep(record, None, reason)
        if ended:
            raise ended[0]
        return labels

    def _service(self) -> http.Service:
        config, key = self._config, ""
        if config.key_variable:
            key = os.environ.get(config.key_variable, "")
            if not key:
                raise ConfigError(f"environment variable {config.key_variable} must hold the endpoint's key")
        return http.Service(config.url, key, config.allow_plain_http, config.timeout, config.attempts)

    def _ask(self, service: http.Service, record: Record, stop: threading.Event) -> tuple[int | None, int]:
        config = self._config

        def begin() -> None:
            if stop.is_set():
                raise _Stopped
            with self._lock:
                self._requests += 1

        question = prompts.ask(record["text"], record.get("lang", ""), config.max_characters)
        body = {"model": config.model, "messages": [{"role": "user", "content": question}], "temperature": 0}
        try:
            content, tokens = http.post_json(
                service, "/chat/completions", body, _read_answer, wait=self._wait or stop.wait, begin=begin
            )
        except http.Refused:
            raise
        except Exception:
            stop.set()  # set here, before a worker starts the next document
            raise
        return prompts.score_in(content), tokens


class _Stopped(Exception):
    """Raised in workers after another request has ended the run."""


def endpoint(config: EndpointConfig, wait: Callable[[float], object] | None = None) -> Endpoint:
    """Returns the annotator of a config."""
    return Endpoint(config, wait)


def _read_answer(answer: Any) -> tuple[str, int]:
    """The text of a chat completion and the number of tokens that it used.

    Raises:
      ValueError: the answer has another form.
    """
    content = http.chat_text(answer)
    usage = answer.get("usage")
    tokens = usage.get("total_tokens") if isinstance(usage, dict) else 0
    return content, tokens if type(tokens) is int and 0 <= tokens < 2**53 else 0


def judge(continue_texts: Callable[[Sequence[str]], Sequence[str]], max_characters: int) -> Annotator:
    """An annotator that asks a local model.

    Args:
      continue_texts: prompts → answers.
      max_characters: characters of a document that are shown.
    """

    def annotate(batch: Sequence[Record]) -> list[int | None]:
        asked = [prompts.ask(r["text"], r.get("lang", ""), max_characters) for r in batch]
        return [prompts.score_in(answer) for answer in continue_texts(asked)]

    return annotate
