"""A stage's batches beside what a cached teacher said about them (`teacher_cache.py`)."""

import concurrent.futures
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from kanana_jax.data.stream.pipeline import BatchStream
from kanana_jax.data.stream.teacher_cache import HASHED, TeacherCache, row_digest
from kanana_jax.errors import UserError


class CachedStream:
    """A stage's batches with `teacher_ids` and `teacher_log_probs` `[rows, T, k]`; 0 where a token carries no loss.

    Args:
      stream: the stage's own; position, `wait_seconds` and `filter_seconds` are its.
      rows: the global rows that it gives.
      cache: of the same rows.
      steps: how many will be asked for.
      stage: its name, for messages.
      about: what the stage's rows are made of, to be compared with the cache's `data` where rows differ.
      top_k: entries a token, the most probable ones; 0: all that are cached.
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
        """Reads on from the stream's position: a lane's row number counts the rows that this stage has drawn."""
        lanes = self._stream.get_state()
        self._step = next(iter(lanes.values()))["row"] * len(lanes) // len(self._rows)
        self._read_ahead()

    def _read_ahead(self) -> None:
        self._next = self._reader.submit(self._cache.read, self._step, self._rows) if self._step < self._steps else None

    def __next__(self) -> dict[str, np.ndarray]:
        batch = next(self._stream)
        began = time.perf_counter()
        if self._next is None:
            raise UserError(f"stage '{self._stage}' asks for more than the {self._steps} steps that it announced")
        entries = self._next.result()
        for i, entry in enumerate(entries):
            if entry.digest != row_digest({key: batch[key][i] for key in HASHED}):
                raise self._differs(int(self._rows[i]))
        shape = (*batch["weights"].shape, self._k)
        carries = batch["weights"] > 0
        for key in ("ids", "log_probs"):
            values = [getattr(entry, key)[:, : self._k] for entry in entries]
            batch[f"teacher_{key}"] = np.zeros(shape, values[0].dtype.newbyteorder("="))
            batch[f"teacher_{key}"][carries] = np.concatenate(values)
        self._step += 1
        self._read_ahead()
        self.wait_seconds = self._stream.wait_seconds + time.perf_counter() - began
        self.filter_seconds = self._stream.filter_seconds
        return batch

    def _differs(self, row: int) -> UserError:
        ours, theirs = self._about, self._cache.index["data"]
        keys = [key for key in ours if ours[key] != theirs.get(key)]
        why = f"its {', '.join(keys)} differ" if keys else "nothing in the config differs, so the documents must"
        return UserError(
            f"stage '{self._stage}': row {row} of step {self._step} is not the row that {self._cache.folder} was made "
            f"of ({why}): give both stages the same data, or cache the teacher again"
        )

    def get_state(self) -> dict[str, Any]:
        return self._stream.get_state()

    def set_state(self, state: dict[str, Any]) -> None:
        self._stream.set_state(state)
        self._seek()

    def close(self) -> None:
        self._reader.shutdown(cancel_futures=True)
        self._stream.close()
