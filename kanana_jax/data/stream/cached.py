"""A stage's batches with a cached teacher's log-probabilities (`teacher_cache.py`)."""

import concurrent.futures
import time
from collections.abc import Mapping
from typing import Any, Generic, NamedTuple

import numpy as np

from kanana_jax.data.stream.lanes import Position
from kanana_jax.data.stream.packing import Array, Rows, shapes
from kanana_jax.data.stream.pipeline import BatchStream
from kanana_jax.data.stream.teacher_cache import TeacherCache, row_digest
from kanana_jax.errors import UserError


class CachedRows(NamedTuple, Generic[Array]):
    """Rows with the teacher's k most probable tokens for each target; 0 where a target has no weight.

    Attributes:
      rows: `[B, T]`.
      teacher_ids: unsigned integers `[B, T, k]`.
      teacher_log_probs: `[B, T, k]`, not renormalised.
    """

    rows: Rows[Array]
    teacher_ids: Array
    teacher_log_probs: Array


def cached_shapes(batch_size: int, seq_len: int, k: int, ids: str, log_probs: str) -> CachedRows[np.ndarray]:
    """A batch's shapes and dtypes, as arrays that use no memory."""
    shape = (batch_size, seq_len, k)
    arrays = (np.broadcast_to(np.zeros((), kind), shape) for kind in (ids, log_probs))
    return CachedRows(shapes(batch_size, seq_len), *arrays)


class CachedStream:
    """A stage's batches, joined with the entries of a cache.

    Args:
      stream: the stage's own stream, from which position, `wait_seconds` and `filter_seconds` come.
      rows: the global rows that it yields.
      cache: the cache of the same rows.
      steps: number of batches that will be requested.
      stage: its name, for messages.
      about: the values that determine the stage's rows, compared with the cache's `data` if rows differ.
      top_k: number of most probable entries per token; 0: all cached ones.
    """

    def __init__(
        self,
        stream: BatchStream,
        rows: np.ndarray,
        cache: TeacherCache,
        *,
        steps: int,
        stage: str,
        about: Mapping[str, Any],
        top_k: int = 0,
    ):
        self._stream, self._rows, self._cache, self._steps = stream, np.asarray(rows), cache, steps
        self._stage, self._about, self._k = stage, about, top_k or cache.index["k"]
        self._reader = concurrent.futures.ThreadPoolExecutor(1, "teacher cache")
        self.wait_seconds = self.filter_seconds = 0.0
        self._seek()

    def _seek(self) -> None:
        """Continues from the stream's position: a lane's row number counts the rows that this stage has drawn."""
        lanes = self._stream.get_state()
        self._step = next(iter(lanes.values()))["row"] * len(lanes) // len(self._rows)
        self._read_ahead()

    def _read_ahead(self) -> None:
        self._next = self._reader.submit(self._cache.read, self._step, self._rows) if self._step < self._steps else None

    def __next__(self) -> CachedRows[np.ndarray]:
        rows = next(self._stream)
        began = time.perf_counter()
        if self._next is None:
            raise UserError(f"stage '{self._stage}' asks for more than the {self._steps} steps that it announced")
        entries = self._next.result()
        for i, entry in enumerate(entries):
            if entry.digest != row_digest(rows, i):
                raise self._differs(int(self._rows[i]))
        carries, found = rows.weights > 0, []
        for values in ([entry.ids for entry in entries], [entry.log_probs for entry in entries]):
            joined = np.zeros((*rows.weights.shape, self._k), values[0].dtype.newbyteorder("="))
            joined[carries] = np.concatenate([part[:, : self._k] for part in values])
            found.append(joined)
        self._step += 1
        self._read_ahead()
        self.wait_seconds = self._stream.wait_seconds + time.perf_counter() - began
        self.filter_seconds = self._stream.filter_seconds
        return CachedRows(rows, *found)

    def _differs(self, row: int) -> UserError:
        ours, theirs = self._about, self._cache.index["data"]
        keys = [key for key in ours if ours[key] != theirs.get(key)]
        why = f"its {', '.join(keys)} differ" if keys else "nothing in the config differs, so the documents must"
        return UserError(
            f"stage '{self._stage}': row {row} of step {self._step} is not the row that {self._cache.folder} was made "
            f"from ({why}): give both stages the same data, or cache the teacher again"
        )

    def get_state(self) -> Position:
        return self._stream.get_state()

    def set_state(self, state: Position) -> None:
        self._stream.set_state(state)
        self._seek()

    def close(self) -> None:
        self._reader.shutdown(cancel_futures=True)
        self._stream.close()
