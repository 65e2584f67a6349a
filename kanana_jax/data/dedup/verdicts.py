"""Verdicts by a document's place, for look-up by the data filter: one memory-mapped file.

A place is an origin, identified by its content, and a number within it (`read.origins`), since ids may repeat and paths
may be written in several ways. Each verdict is stored with 32 bits of its document's text, so that looking up any other
document is an error instead of a wrong verdict.
"""

import dataclasses
import functools
import hashlib
import pathlib
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from kanana_jax.data.arrays import tables
from kanana_jax.data.read import origins as origins_lib
from kanana_jax.data.read.origins import Origin
from kanana_jax.data.read.record import PLACE, Record
from kanana_jax.errors import UserError

FILE = "verdicts.safetensors"
NAMES = {1: "exact_duplicate", 2: "near_duplicate"}
_NOTHING = 255  # entry of a line that is not a document
_FORMAT = 2  # format 1 was by id
_ARRAYS = {"kinds": ("U8", 1), "checks": ("U32", 1), "items": ("I64", 1), "origins": ("U8", 1)}


def check_of(text: str) -> int:
    """A 32-bit checksum of a text's exact bytes."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=4).digest(), "little")


@dataclasses.dataclass(frozen=True)
class Judged:
    """The N documents of F origins, in order.

    Attributes:
      origins: the origins, identified by their content.
      items: number of lines in each origin, documents or not, `[F]`.
      documents: number of documents in each origin, `[F]`.
      numbers: each document's number within its origin, `[N]`.
      checks: `check_of` each document's text, `[N]`.
    """

    origins: Sequence[Origin]
    items: np.ndarray
    documents: np.ndarray
    numbers: np.ndarray
    checks: np.ndarray

    @property
    def rows(self) -> np.ndarray:
        """Index of each document among all items, `[N]`."""
        starts = np.cumsum(self.items) - self.items
        return np.repeat(starts, self.documents) + self.numbers

    def line(self, i: int, kept: int, ids: Sequence[str], kind: int) -> dict[str, str]:
        """A line of `duplicates.jsonl`: document `i` is dropped in favour of `kept`; `ids` are those of the two."""
        return {
            "id": ids[0],
            "verdict": NAMES[kind],
            "kept": ids[1],
            "place": self._place(i),
            "kept_place": self._place(kept),
        }

    def _place(self, i: int) -> str:
        """A readable place; lines are counted from 1, without blank lines."""
        origin = int(np.searchsorted(self._ends, i, side="right"))
        return f"{self.origins[origin].address}:{int(self.numbers[i]) + 1}"

    @functools.cached_property
    def _ends(self) -> np.ndarray:
        return np.cumsum(self.documents)


def write(folder: pathlib.Path, judged: Judged, kinds: np.ndarray) -> None:
    """Writes the verdicts of all documents, atomically; `kinds` [N] is 0 for kept documents.

    Raises:
      UserError: the disk is full or not writable.
    """
    total = int(judged.items.sum())
    table = {"kinds": np.full(total, _NOTHING, np.uint8), "checks": np.zeros(total, np.uint32)}
    table["kinds"][judged.rows], table["checks"][judged.rows] = kinds, judged.checks
    table["items"] = judged.items.astype(np.int64)
    table["origins"] = tables.as_bytes([origin.row for origin in judged.origins])
    tables.write(folder / FILE, {"format": _FORMAT}, table)


def opened(folder: str) -> "Verdicts":
    """The verdicts in a folder, cached per process until the file is replaced."""
    return tables.opened(Verdicts, folder, FILE)


class Verdicts:
    """Looks up records: `exact_duplicate`, `near_duplicate` or None; picklable, memory-mapped.

    Raises:
      UserError: the folder has no verdicts, or they are damaged.
    """

    def __init__(self, folder: str | pathlib.Path):
        self._folder = pathlib.Path(folder)
        if (self._folder / "ids.npy").is_file() and not (self._folder / FILE).is_file():
            raise UserError(f"{folder} holds verdicts by id, of an older version: {self._again(' into a new folder')}")
        try:
            about, arrays = tables.read(self._folder / FILE, _ARRAYS)
            self._kinds, self._checks, items = arrays["kinds"], arrays["checks"], arrays["items"]
            self._origins = origins_lib.from_rows(tables.from_bytes(arrays["origins"]))
            if about.get("format") != _FORMAT:
                raise ValueError("it has another format")
            sizes = len(self._kinds), len(self._checks), int(items.sum())
            if len(set(sizes)) > 1 or len(items) != len(self._origins) or (len(items) and items.min() < 0):
                raise ValueError("its arrays do not belong together")
            if not np.isin(np.unique(self._kinds), (0, *NAMES, _NOTHING)).all():
                raise ValueError("it has verdicts of an unknown kind")
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"{self._folder / FILE} holds no verdicts on duplicates ({error}): {self._again()}"
            ) from error
        self._items = items.tolist()
        self._starts = (np.cumsum(items) - items).tolist()
        self._by_digest: dict[str, list[int]] = defaultdict(list)
        for i, origin in enumerate(self._origins):
            self._by_digest[origin.digest].append(i)
        self._found: dict[tuple[str, str], int] = {}

    def __reduce__(self):
        return opened, (str(self._folder),)

    def _again(self, how: str = "") -> str:
        return f"run `kanana dedup --output {self._folder} --input …` again{how}"

    def check(self, found: Sequence[Origin]) -> None:
        """Checks, before any document is read, that all origins were judged.

        Raises:
          UserError: names the first origin that was not.
        """
        taken: dict[int, Origin] = {}
        for origin in found:
            known = self._origin(origin.digest, origin.path)
            other = taken.setdefault(known, origin)
            if other is not origin:
                raise UserError(
                    f"{origin.name} and {other.name} hold the same, but {self._folder} has judged only "
                    f"{self._origins[known].path}: {self._again(' with both')}"
                )

    def _origin(self, digest: str, path: str) -> int:
        """The judged origin with the same content; of several, the one whose path shares the longest end."""
        found = self._found.get((digest, path))
        if found is not None:
            return found
        alike = self._by_digest.get(digest, [])
        if not alike:
            changed = any(origin.path == path for origin in self._origins)
            what = "has changed since it was judged" if changed else "is not among the documents that were judged"
            raise UserError(f"{path} {what} for duplicates in {self._folder}: {self._again(' with it')}")
        lengths = [_common(path, self._origins[i].path) for i in alike]
        best = [i for i, length in zip(alike, lengths) if length == max(lengths)]
        if len(best) > 1:
            both = " and ".join(self._origins[i].path for i in best[:2])
            raise UserError(
                f"{path} holds what {both} hold, which were judged for duplicates in {self._folder}: "
                f"name the documents as they were named there, or {self._again(' with it')}"
            )
        return self._found.setdefault((digest, path), best[0])

    def __call__(self, record: Record) -> str | None:
        """The verdict on a record that carries its place.

        Raises:
          UserError: the record was not judged, or has changed since.
        """
        place = record.get(PLACE)
        if place is None:
            raise UserError(f"document '{record['id']}' does not carry its place, by which verdicts are looked up")
        digest, path, number = place
        origin = self._origin(digest, path)
        row = self._starts[origin] + number
        if number >= self._items[origin] or self._kinds[row] == _NOTHING:
            raise UserError(f"{path}: document {number + 1} was not judged in {self._folder}: {self._again()}")
        if self._checks[row] != check_of(record["text"]):
            raise UserError(f"{path}: document {number + 1} is not what {self._folder} has judged: {self._again()}")
        return NAMES.get(int(self._kinds[row]))


def _common(a: str, b: str) -> int:
    """The number of equal components at the ends of two paths."""
    length = 0
    for own, other in zip(reversed(a.split("/")), reversed(b.split("/"))):
        if own != other:
            break
        length += 1
    return length if a != b else length + 1
