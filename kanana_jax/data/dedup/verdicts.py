"""Verdicts by document id, as the inline filter looks them up: two sorted arrays on disk, nothing in memory."""

import hashlib
import pathlib
from collections.abc import Sequence

import numpy as np

from kanana_jax.errors import UserError

NAMES = {1: "exact_duplicate", 2: "near_duplicate"}
_IDS, _KINDS = "ids.npy", "kinds.npy"


def id_hash(identity: str) -> int:
    """64 bits of an id: among 10^9 documents one pair in forty such corpora would be confused."""
    return int.from_bytes(hashlib.blake2b(identity.encode("utf-8", "replace"), digest_size=8).digest(), "little")


def write(folder: pathlib.Path, ids: Sequence[str], kinds: np.ndarray) -> None:
    """Writes the verdicts of dropped documents (`kinds` other than 0)."""
    dropped = np.flatnonzero(kinds)
    hashes = np.array([id_hash(ids[i]) for i in dropped], np.uint64)
    order = np.argsort(hashes)
    for name, values in ((_IDS, hashes[order]), (_KINDS, kinds[dropped][order])):
        temporary = folder / f"{name}.partial.npy"
        np.save(temporary, values)
        temporary.replace(folder / name)


class Verdicts:
    """Record id → `exact_duplicate`, `near_duplicate` or None; picklable, memory-mapped."""

    def __init__(self, folder: str | pathlib.Path):
        self._folder = pathlib.Path(folder)
        try:
            self._ids = np.load(self._folder / _IDS, mmap_mode="r", allow_pickle=False)
            self._kinds = np.load(self._folder / _KINDS, mmap_mode="r", allow_pickle=False)
        except (OSError, EOFError, ValueError) as error:
            raise UserError(f"{folder} holds no verdicts on duplicates ({error}): run `kanana dedup` first") from error

    def __reduce__(self):
        return Verdicts, (self._folder,)

    def __call__(self, identity: str) -> str | None:
        wanted = np.uint64(id_hash(identity))
        at = int(np.searchsorted(self._ids, wanted))
        if at < len(self._ids) and self._ids[at] == wanted:
            return NAMES[int(self._kinds[at])]
        return None
