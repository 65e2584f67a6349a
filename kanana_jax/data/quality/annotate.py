"""Labels 0-5 of documents: from a file, from an endpoint that speaks OpenAI's protocol, or from one's own model.

Every label is written down before the next batch is asked for: nothing is asked, or paid for, twice.
"""

import concurrent.futures
import dataclasses
import hashlib
import json
import os
import pathlib
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from kanana_jax import jsonl
from kanana_jax.data.quality import prompts
from kanana_jax.data.read.record import Record
from kanana_jax.errors import ConfigError, UserError

Annotator = Callable[[Sequence[Record]], "list[int | None]"]
"""Documents → labels; None where none could be had."""

RETRIED = (408, 409, 429, 500, 502, 503, 504)


@dataclasses.dataclass(frozen=True)
class EndpointConfig:
    """An OpenAI-compatible endpoint.

    Attributes:
      url: up to and without `/chat/completions`.
      model: as the endpoint names it.
      key_variable: environment variable that holds the key; empty: none is sent.
      max_requests, max_tokens: budget of one run, 0 for no bound; tokens are those that the endpoint says it used.
      max_characters: of a document that are shown.
      concurrency: requests under way at once.
      timeout: seconds for one request.
      attempts: of one request, with 1, 2, 4 … seconds in between.
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

    def __post_init__(self):
        if not self.url.startswith(("http://", "https://")):
            raise ValueError("url must begin with http:// or https://")
        if min(self.concurrency, self.attempts) < 1 or self.timeout <= 0 or min(self.max_requests, self.max_tokens) < 0:
            raise ValueError("concurrency, attempts and timeout must be positive, a budget not negative")


def endpoint(config: EndpointConfig, wait: Callable[[float], None] = time.sleep) -> Annotator:
    """Asks an endpoint at temperature 0.

    Raises (when asked):
      ConfigError: the key is missing.
      UserError: the endpoint refuses or stays away, or the budget is used up.
    """
    used = {"requests": 0, "tokens": 0}

    def ask(record: Record) -> tuple[int | None, int]:
        body = {
            "model": config.model,
            "messages": [
                {"role": "user", "content": prompts.ask(record["text"], record.get("lang", ""), config.max_characters)}
            ],
            "temperature": 0,
        }
        answer = _post(config, body, wait)
        try:
            content = answer["choices"][0]["message"]["content"] or ""
        except (KeyError, IndexError, TypeError) as error:
            raise UserError(
                f"{config.url} answered without choices[0].message.content: is it a chat endpoint?"
            ) from error
        return prompts.score_in(content), int((answer.get("usage") or {}).get("total_tokens", 0))

    def annotate(batch: Sequence[Record]) -> list[int | None]:
        if config.max_requests and used["requests"] + len(batch) > config.max_requests:
            raise UserError(f"the budget of {config.max_requests} requests is used up: raise max_requests to go on")
        if config.max_tokens and used["tokens"] >= config.max_tokens:
            raise UserError(f"the budget of {config.max_tokens} tokens is used up: raise max_tokens to go on")
        with concurrent.futures.ThreadPoolExecutor(config.concurrency) as pool:
            found = list(pool.map(ask, batch))
        used["requests"] += len(batch)
        used["tokens"] += sum(tokens for _, tokens in found)
        return [label for label, _ in found]

    return annotate


def _post(config: EndpointConfig, body: dict[str, Any], wait: Callable[[float], None]) -> Any:
    headers = {"Content-Type": "application/json"}
    if config.key_variable:
        key = os.environ.get(config.key_variable)
        if not key:
            raise ConfigError(f"environment variable {config.key_variable} must hold the key of {config.url}")
        headers["Authorization"] = f"Bearer {key}"
    url = f"{config.url.rstrip('/')}/chat/completions"
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    for attempt in range(config.attempts):
        try:
            with urllib.request.urlopen(request, timeout=config.timeout) as response:
                return json.loads(response.read())
        except urllib.error.HTTPError as error:
            if error.code not in RETRIED:
                raise UserError(f"{url} answered {error.code} {error.reason}: check url, model and key") from error
            reason = f"{error.code} {error.reason}"
        except (urllib.error.URLError, TimeoutError, ConnectionError, json.JSONDecodeError) as error:
            reason = str(getattr(error, "reason", error))
        if attempt + 1 < config.attempts:
            wait(2.0**attempt)
    raise UserError(f"{url} did not answer after {config.attempts} attempts ({reason}): run again to go on")


def judge(continue_texts: Callable[[Sequence[str]], Sequence[str]], max_characters: int) -> Annotator:
    """Asks a model of one's own: prompts → answers."""

    def annotate(batch: Sequence[Record]) -> list[int | None]:
        asked = [prompts.ask(r["text"], r.get("lang", ""), max_characters) for r in batch]
        return [prompts.score_in(answer) for answer in continue_texts(asked)]

    return annotate


def read_labels(path: pathlib.Path) -> dict[str, int | None]:
    """Labels by document id, from lines `{"id", "label"}`; the last of a document counts.

    Raises:
      UserError: names the line.
    """
    labels: dict[str, int | None] = {}
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise UserError(f"labels '{path}' cannot be read ({error.strerror})") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = jsonl.parse(line)
            label = row["label"]
            if not isinstance(row["id"], str) or not (label is None or (type(label) is int and 0 <= label <= 5)):
                raise ValueError
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f'{path}:{number} is no label: a line is {{"id": "…", "label": 0 … 5}}; delete or mend it'
            ) from error
        labels[row["id"]] = label
    return labels


class Labels:
    """Labels that are known, and an annotator for those that are not; each new one is appended to a file at once."""

    def __init__(self, path: pathlib.Path, annotator: Annotator | None, batch: int = 32):
        self._path, self._annotator, self._batch = path, annotator, batch
        if path.is_file():
            _cut_torn_line(path)
        self._known = read_labels(path) if path.is_file() else {}

    def __call__(self, documents: Sequence[Record]) -> dict[str, int]:
        """Labels of the documents that have one, by id."""
        new = [r for r in documents if r["id"] not in self._known]
        if self._annotator is not None and new:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            for i in range(0, len(new), self._batch):
                batch = new[i : i + self._batch]
                labels = self._annotator(batch)
                with self._path.open("a", encoding="utf-8") as file:
                    for record, label in zip(batch, labels):
                        file.write(json.dumps({"id": record["id"], "label": label}, ensure_ascii=False) + "\n")
                    file.flush()
                    os.fsync(file.fileno())
                self._known.update((r["id"], label) for r, label in zip(batch, labels))
        return {r["id"]: label for r in documents if (label := self._known.get(r["id"])) is not None}


def _cut_torn_line(path: pathlib.Path) -> None:
    """A killed run may leave half a line at the end; its label is asked for again."""
    data = path.read_bytes()
    if data and not data.endswith(b"\n"):
        try:
            json.loads(data[data.rfind(b"\n") + 1 :])
        except ValueError:
            os.truncate(path, data.rfind(b"\n") + 1)
        else:
            with path.open("ab") as file:
                file.write(b"\n")


def order_of(identity: str, salt: str) -> int:
    """A place in a random but fixed order of documents."""
    return int.from_bytes(hashlib.blake2b(f"{salt}\0{identity}".encode(), digest_size=8).digest(), "big")


def sample(documents: Iterable[Record], count: int, salt: str) -> list[Record]:
    """`count` documents drawn by a hash of their ids, in the order drawn; one pass, `count` in memory."""
    import heapq

    keyed = ((order_of(r["id"], salt), r["id"], r) for r in documents)
    return [r for _, _, r in heapq.nsmallest(count, keyed, key=lambda x: x[:2])]
