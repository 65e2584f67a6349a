"""A teacher's top-k log-probabilities for every row of a stream, on disk.

    index.json                     its inputs and the location of rows; written once the cache is complete
    progress.json                  the same for an unfinished one, with the position in the stream
    000012-00000.array_record      shard 12 as written by process 0: one record per row

A row is found by its global number, step · B + row, whoever wrote it; a hash of its contents ties the two together.
This module knows nothing of models.
"""

import bisect
import contextlib
import functools
import hashlib
import os
import pathlib
import struct
from collections.abc import Callable, Generator, Sequence
from typing import Any, NamedTuple

import grain
import numpy as np

from kanana_jax.data.stream.packing import Rows
from kanana_jax.errors import ConfigError, UserError
from kanana_jax.files import is_remote, load_json, scratch, stage_down, sync

INDEX, PROGRESS = "index.json", "progress.json"
HASHED = ("inputs", "positions", "segment_ids", "targets", "weights")
_LOG_PROBS = ("float16", "float32")
_HEAD = struct.Struct("<16sQI")


def ids_dtype(vocab_size: int) -> str:
    """The smallest unsigned dtype that holds every token id."""
    return str(np.min_scalar_type(vocab_size - 1))


class Entry(NamedTuple):
    """The teacher's entries for a row.

    Attributes:
      digest: 16 bytes, `row_digest` of the row.
      number: its global number.
      ids: `[n, k]`, for each of its n tokens that carry loss; the most probable first.
      log_probs: `[n, k]`, not renormalised.
    """

    digest: bytes
    number: int
    ids: np.ndarray
    log_probs: np.ndarray


def row_digest(rows: Rows[np.ndarray], index: int) -> bytes:
    """blake2b over a row's inputs, positions, segment ids, targets (int32) and weights (float32)."""
    digest = hashlib.blake2b(digest_size=16)
    for key in HASHED:
        digest.update(np.ascontiguousarray(getattr(rows, key)[index], "<f4" if key == "weights" else "<i4").data)
    return digest.digest()


def encode(entry: Entry) -> bytes:
    """Head (digest, number, n), all ids, all log-probabilities; little-endian."""
    arrays = (np.ascontiguousarray(x, x.dtype.newbyteorder("<")).tobytes() for x in (entry.ids, entry.log_probs))
    return _HEAD.pack(entry.digest, entry.number, len(entry.ids)) + b"".join(arrays)


def decode(data: bytes, k: int, ids: str, log_probs: str) -> Entry:
    """The inverse of `encode`.

    Args:
      ids, log_probs: dtypes.

    Raises:
      ValueError: not a record of this k and these dtypes.
    """
    dtypes = [np.dtype(name).newbyteorder("<") for name in (ids, log_probs)]
    if len(data) < _HEAD.size:
        raise ValueError("a record is shorter than its head")
    digest, number, n = _HEAD.unpack_from(data)
    if len(data) != _HEAD.size + n * k * sum(d.itemsize for d in dtypes):
        raise ValueError(f"a record has {len(data)} bytes, which are not {n} tokens of {k} entries")
    first = np.frombuffer(data, dtypes[0], n * k, _HEAD.size)
    second = np.frombuffer(data, dtypes[1], n * k, _HEAD.size + first.nbytes)
    return Entry(digest, number, first.reshape(n, k), second.reshape(n, k))


def shard_name(shard: int, process: int) -> str:
    return f"{shard:06d}-{process:05d}.array_record"


@contextlib.contextmanager
def shard_writer(path: pathlib.Path) -> Generator[Callable[[bytes], None]]:
    """Yields a function that appends a record; the complete file appears once the block has ended without error.

    Raises:
      UserError: the disk is full or not writable.
    """
    from array_record.python.array_record_module import ArrayRecordWriter

    if is_remote(path):
        from kanana_jax.files.staging import upload_file

        with scratch(path) as folder:
            local = folder / path.name
            with shard_writer(local) as write:
                yield write
            upload_file(local, path)
        return
    partial = path.with_suffix(".partial")
    writer = ArrayRecordWriter(str(partial), "group_size:1,zstd:1")

    def attempt(action: Callable[..., Any], *arguments: Any) -> None:
        try:
            action(*arguments)
        except (OSError, RuntimeError) as error:
            raise UserError(f"cannot write {path} ({str(error)[:150]}): free space or fix the folder") from error

    try:
        yield functools.partial(attempt, writer.write)
        attempt(writer.close)  # also reports earlier failed writes
        attempt(sync, partial)
        attempt(os.replace, partial, path)
        attempt(sync, path.parent)
    except BaseException:
        with contextlib.suppress(RuntimeError):
            writer.close()
        partial.unlink(missing_ok=True)
        raise


def _checked(index: dict[str, Any], file: pathlib.Path) -> dict[str, Any]:
    """Reads an index, and checks its types and that its shards hold every row of every step once.

    Raises:
      UserError: names the key.
    """

    def wrong(key: str) -> UserError:
        found = repr(index.get(key))
        return UserError(f"{file} is damaged ({key} is {found[:80]}): restore it, or make the cache again")

    for key in ("k", "seq_len", "batch_size", "steps", "rows", "vocab_size"):
        if type(index.get(key)) is not int or not 1 <= index[key] < 1 << 48:
            raise wrong(key)
    for key in ("tokenizer", "teacher"):
        if not isinstance(index.get(key), str):
            raise wrong(key)
    if index.get("ids_dtype") not in ("uint8", "uint16", "uint32") or index.get("log_probs_dtype") not in _LOG_PROBS:
        raise wrong("ids_dtype" if index.get("log_probs_dtype") in _LOG_PROBS else "log_probs_dtype")
    shards = index.get("shards")
    if not isinstance(shards, list) or index["rows"] != index["steps"] * index["batch_size"]:
        raise wrong("shards" if isinstance(index.get("rows"), int) and not isinstance(shards, list) else "rows")
    covered = 0
    for shard in shards:
        name = shard.get("file") if isinstance(shard, dict) else None
        if not isinstance(name, str) or pathlib.PurePath(name).name != name:
            raise wrong("shards")
        steps, parts = shard.get("steps"), shard.get("rows")
        if not isinstance(parts, list) or not _bounds(steps, index["steps"]):
            raise wrong("shards")
        if not all(_bounds(part, index["batch_size"]) for part in parts):
            raise wrong("shards")
        covered += (steps[1] - steps[0]) * sum(end - first for first, end in parts)
    if covered != index["rows"]:
        raise wrong("shards")
    return index


def _bounds(value: Any, most: int) -> bool:
    """Returns whether a value is `[first, end]` of a part of `range(most)`."""
    numbers = isinstance(value, list) and len(value) == 2 and all(type(n) is int for n in value)
    return numbers and 0 <= value[0] < value[1] <= most


class TeacherCache:
    """A finished cache, open for reading.

    Attributes:
      folder: the cache's folder.
      index: `index.json`.

    Raises:
      UserError: there is none, it is unfinished, or shards are missing or broken.
    """

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        if not (self.folder / INDEX).is_file():
            unfinished = (self.folder / PROGRESS).is_file()
            raise UserError(
                f"{self.folder} is not finished: let 'kanana run' finish it"
                if unfinished
                else f"{self.folder} holds no cached teacher ({INDEX} is missing): name a stage of kind 'cache_teacher'"
            )
        self.index = _checked(load_json(self.folder / INDEX), self.folder / INDEX)
        local = stage_down(self.folder)
        files = [local / shard["file"] for shard in self.index["shards"]]
        missing = next((file for file in files if not file.is_file()), None)
        if missing is not None:
            raise UserError(f"{missing} is missing: restore it, or remove {self.folder} and make the cache again")
        try:
            self._records = grain.sources.ArrayRecordDataSource([str(file) for file in files])
            found = len(self._records)
        except RuntimeError as error:
            raise UserError(f"{self.folder} has a broken shard ({error}): make the cache again") from error
        if found != self.index["rows"]:
            raise UserError(f"{self.folder} has {found} of its {self.index['rows']} rows: make the cache again")
        # (first step, rows of a step, place of the first record) of each shard, by the steps that it covers.
        self._shards: dict[int, list[tuple[np.ndarray, int]]] = {}
        place = 0
        for shard in self.index["shards"]:
            first, end = shard["steps"]
            rows = np.concatenate([np.arange(*bounds) for bounds in shard["rows"]])
            self._shards.setdefault(first, []).append((rows, place))
            place += (end - first) * len(rows)
        self._starts = sorted(self._shards)

    def check(
        self,
        stage: str,
        *,
        tokenizer: str,
        seq_len: int,
        batch_size: int,
        steps: int,
        top_k: int,
        teacher: str | None,
    ) -> None:
        """Refuses a cache that is not for a stage.

        Args:
          tokenizer: `TextEncoder.fingerprint` of the recipe's.
          top_k: entries per token that are needed; 0: all.
          teacher: fingerprint of the teacher that the config names, or None.

        Raises:
          ConfigError: names the difference, with both values.
        """
        index, of = self.index, f"stage '{stage}': the cached teacher {self.folder}"
        if index["tokenizer"] != tokenizer:
            raise ConfigError(
                f"{of} has another tokenizer ({index['tokenizer'][:12]}…, the recipe's is {tokenizer[:12]}…): "
                "cache the teacher with this recipe"
            )
        if teacher is not None and teacher != index["teacher"]:
            raise ConfigError(
                f"{of} was made by another model ({index['teacher'][:12]}…, distill.teacher is {teacher[:12]}…): "
                "cache that teacher, or leave out distill.teacher"
            )
        for key, value in (("seq_len", seq_len), ("batch_size", batch_size)):
            if index[key] != value:
                raise ConfigError(
                    f"{of} has rows of {key} {index[key]}, the stage needs {value}: set train.seq_len and "
                    f"train.batch_tokens to what the cache was made with, or make another"
                )
        if index["steps"] < steps:
            raise ConfigError(
                f"{of} ends after {index['steps']} steps, the stage has {steps}: lower train.tokens or cache more"
            )
        if top_k > index["k"]:
            raise ConfigError(
                f"{of} has {index['k']} entries per token, distill.top_k is {top_k}: lower it or cache more"
            )

    def read(self, step: int, rows: Sequence[int] | np.ndarray) -> list[Entry]:
        """Entries of some rows of a step.

        Raises:
          UserError: a shard is broken, or does not hold the rows recorded for it.
        """
        first = self._starts[bisect.bisect_right(self._starts, step) - 1]
        places, wanted = np.empty(len(rows), np.int64), np.asarray(rows)
        for held, place in self._shards[first]:
            at = np.searchsorted(held, wanted).clip(max=len(held) - 1)
            mine = held[at] == wanted
            places[mine] = place + (step - first) * len(held) + at[mine]
        index = self.index
        try:
            records = self._records.__getitems__(places.tolist())
            entries = [decode(data, index["k"], index["ids_dtype"], index["log_probs_dtype"]) for data in records]
        except (RuntimeError, ValueError) as error:
            raise UserError(f"{self.folder}: step {step} cannot be read ({error}): make the cache again") from error
        numbers = [step * index["batch_size"] + int(row) for row in rows]
        if [entry.number for entry in entries] != numbers:
            raise UserError(f"{self.folder}: shards of step {step} hold other rows than {INDEX} says: make it again")
        return entries
