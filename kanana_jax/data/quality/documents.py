"""Selection and sampling of the documents that a classifier is trained on.

A document is identified by its id and its text: ids repeat in shards that each count from 0, and a label of one
document must not be applied to another with the same id.
"""

import hashlib
import heapq
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from kanana_jax.data.read import origins as origins_lib
from kanana_jax.data.read import records
from kanana_jax.data.read.origins import Origin
from kanana_jax.data.read.record import Record
from kanana_jax.errors import ConfigError, UserError
from kanana_jax.files import read_json

Key = tuple[str, str]


def key_of(record: Record) -> Key:
    """A document's key: its id, and a 64-bit hash of its text in hexadecimal."""
    text = record["text"].encode("utf-8", "replace")
    return record["id"], hashlib.blake2b(text, digest_size=8).hexdigest()


def order_of(identity: str, salt: str) -> int:
    """A document's place in a random but fixed order, by a hash of `identity` and `salt`."""
    return int.from_bytes(hashlib.blake2b(f"{salt}\0{identity}".encode(), digest_size=8).digest(), "big")


class Least:
    """Keeps the `count` distinct documents of the smallest order, with `count` in memory."""

    def __init__(self, count: int):
        self._count = count
        self._heap: list[tuple[tuple[float, ...], Key, Any]] = []  # orders are negated: the largest is on top
        self._held: set[Key] = set()

    def add(self, order: Sequence[float], record: Record, value: Any) -> None:
        """Offers a document; `value` is what is kept of it."""
        turned = tuple(-number for number in order)
        if self._count < 1 or (len(self._heap) == self._count and turned < self._heap[0][0]):
            return
        key = key_of(record)
        if key in self._held:
            return
        self._held.add(key)
        entry = _Entry(turned, key, value)
        if len(self._heap) < self._count:
            heapq.heappush(self._heap, entry)
        else:
            self._held.discard(heapq.heappushpop(self._heap, entry)[1])

    def values(self) -> list[Any]:
        """The kept values, in ascending order."""
        return [entry[2] for entry in sorted(self._heap, reverse=True)]


class _Entry(tuple):
    """(negated order, key, value), compared by order, then by descending key; values are not compared."""

    def __new__(cls, *parts: Any):
        return super().__new__(cls, parts)

    def __lt__(self, other: tuple) -> bool:
        return self[0] < other[0] or (self[0] == other[0] and self[1] > other[1])


def sample(documents: Iterable[Record], count: int, salt: str) -> list[Record]:
    """Samples `count` distinct documents by a hash of their ids, in that order; one pass, `count` in memory."""
    drawn = Least(count)
    for record in documents:
        drawn.add((order_of(record["id"], salt),), record, record)
    return drawn.values()


class Pool:
    """The documents at some paths, identified once and read as often as needed; broken lines are skipped.

    Raises:
      UserError: there are no documents; while reading: a file has changed since it was identified.
    """

    def __init__(self, paths: Sequence[str], known: Iterable[Origin] = ()):
        known = list(known)
        self._parts = [
            (pathlib.Path(path).name.split(".")[0], origins_lib.identify(records.find(path), known)) for path in paths
        ]

    @property
    def origins(self) -> list[Origin]:
        """The origins of the documents, in reading order."""
        return list({origin.path: origin for _, part in self._parts for origin in part}.values())

    def __iter__(self) -> Iterator[Record]:
        seen: set[str] = set()
        for source, part in self._parts:
            for origin in part:
                if origin.path not in seen:
                    seen.add(origin.path)
                    items = records.documents_of(origin, source=source)
                    yield from (item for item in items if isinstance(item, dict))


def begun(report_file: pathlib.Path) -> tuple[dict[str, Any] | None, list[Origin]]:
    """The report of an earlier start, None if there was none, and the origins that it had read.

    Raises:
      UserError: the report is damaged.
    """
    report = read_json(report_file)
    if report is None:
        return None, []
    try:
        if not isinstance(report["config_hash"], str) or not all(_is_round(found) for found in report["rounds"]):
            raise ValueError
        return report, origins_lib.from_rows(report.get("inputs", []))
    except (KeyError, ValueError, TypeError) as error:
        raise UserError(f"{report_file} is damaged: name another --output") from error


def _is_round(found: Any) -> bool:
    model = found["model"]
    return isinstance(model, Mapping) and isinstance(model["path"], str) and isinstance(found["threshold"], float)


def check_same(
    output: pathlib.Path, before: Mapping[str, Any], known: Sequence[Origin], digest: str, now: Pool
) -> None:
    """Checks that a resumed run has the same config and documents.

    Raises:
      ConfigError: it does not; names the first file that differs.
    """
    if before["config_hash"] != digest:
        raise ConfigError(f"{output} was started with another config: use that, or name another --output")
    if "inputs" not in before:
        raise ConfigError(f"{output} was started by an older version: name another --output")
    if what := origins_lib.difference(known, now.origins):
        raise ConfigError(f"{output} was started with other inputs ({what}): name another --output")
