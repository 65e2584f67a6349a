"""A fixed reference's log-probabilities of answers, on disk, so that any number of stages asks it only once.

    index.json       identifies the reference: weights, dtype, tokenizer and template
    log_probs-3f…    one file per stage that has asked: a record for each sequence, appended as it is computed: a hash
                     of its tokens, their number, log p of each

A sequence's log-probabilities depend only on its own tokens, so they hold in any row, batch and epoch, for training and
for evaluation. All are kept in memory, 4 bytes per token.
"""

import dataclasses
import hashlib
import pathlib
import struct
from collections.abc import Iterator

import jax
import numpy as np

from kanana_jax.data.stream.packing import Rows
from kanana_jax.errors import ConfigError, UserError
from kanana_jax.files import as_user_error, is_remote, load_json, place, write_json
from kanana_jax.interop import model_folder
from kanana_jax.interop.model_folder import ModelFolder
from kanana_jax.models.model import Model
from kanana_jax.stages.kind import Context

INDEX, VALUES = "index.json", "log_probs-"
_HEAD = struct.Struct("<16sI")


@dataclasses.dataclass(frozen=True)
class ReferenceKey:
    """The facts that determine log p of a sequence: fingerprints of weights, tokenizer and template, and the dtype."""

    weights: str
    dtype: str
    tokenizer: str
    template: str


@dataclasses.dataclass(frozen=True)
class _Place:
    """A sequence in a batch: its hash, its row, and its targets that carry loss."""

    digest: bytes
    row: int
    targets: np.ndarray


class ReferenceCache:
    """The log-probabilities of one reference, open for reading and appending.

    Args:
      stage: its name, for messages.
      writer: the folder of the stage, which has its own file in the cache; nobody else appends to it.

    Raises:
      ConfigError: the folder belongs to another reference, or is in a bucket.
      UserError: the cache is damaged.
    """

    def __init__(self, stage: str, folder: pathlib.Path, key: ReferenceKey, writer: pathlib.Path):
        if is_remote(folder):
            raise ConfigError(f"config '{stage}.reference_cache' is {folder}: name a folder on a disk")
        made = dataclasses.asdict(key)
        if not (folder / INDEX).is_file():
            with as_user_error(folder):
                folder.mkdir(parents=True, exist_ok=True)
            write_json(folder / INDEX, made)
        found = load_json(folder / INDEX)
        other = [name for name in made if found.get(name) != made[name]]
        if other:
            raise ConfigError(
                f"config '{stage}.reference_cache': {folder} belongs to another reference ({' and '.join(other)} "
                "differ): name another folder, or remove that one"
            )
        own = hashlib.blake2b(str(writer.absolute()).encode(), digest_size=8).hexdigest()
        self._file = folder / f"{VALUES}{own}"
        # Its own values take precedence, so that a resumed stage reads the values that it has already used.
        files = [self._file, *sorted(folder.glob(f"{VALUES}*"))]
        self._known: dict[bytes, np.ndarray] = {}
        for file in files:
            if file.is_file():
                self._read(file)

    def _read(self, file: pathlib.Path) -> None:
        """Adds the records of a file; a killed process's partial record is skipped, and cut off an own file."""
        data, at = file.read_bytes(), 0
        while at + _HEAD.size <= len(data):
            digest, count = _HEAD.unpack_from(data, at)
            end = at + _HEAD.size + 4 * count
            if end > len(data):
                break
            values = np.frombuffer(data, "<f4", count, at + _HEAD.size)
            if not count or not np.isfinite(values).all() or (values > 1e-3).any():
                raise UserError(f"{file} is damaged at byte {at}: remove it, and the reference computes it again")
            self._known.setdefault(digest, values)
            at = end
        if at < len(data) and file == self._file:
            with file.open("r+b") as stream:
                stream.truncate(at)

    def find(self, rows: Rows[np.ndarray]) -> np.ndarray | None:
        """log p of the targets that carry loss, float32 `[B, T]`, 0 elsewhere; None: a sequence is not cached."""
        found = np.zeros(rows.weights.shape, np.float32)
        for at in _places(rows):
            values = self._known.get(at.digest)
            if values is None or len(values) != len(at.targets):
                return None
            found[at.row, at.targets] = values
        return found

    def add(self, rows: Rows[np.ndarray], log_probs: np.ndarray) -> np.ndarray:
        """Adds new log p of the targets, `[B, T]`; cached values stay as they were.

        Returns:
          the same as `find`.

        Raises:
          UserError: the disk is full, or the folder cannot be written.
        """
        new = []
        for at in _places(rows):
            if at.digest not in self._known:
                values = np.ascontiguousarray(log_probs[at.row, at.targets], "<f4")
                self._known[at.digest] = values
                new.append(_HEAD.pack(at.digest, len(values)) + values.tobytes())
        if new:
            with as_user_error(self._file), self._file.open("ab") as stream:
                stream.write(b"".join(new))
        found = self.find(rows)
        assert found is not None
        return found


def of_stage(name: str, cache: str, context: Context, folder: ModelFolder, model: Model) -> ReferenceCache:
    """The cache that a stage names.

    Args:
      folder, model: the reference's folder, and its model as it runs.

    Raises:
      ConfigError: as for `ReferenceCache`, or the run has several processes.
    """
    if jax.process_count() > 1:
        raise ConfigError(f"config '{name}.reference_cache' is for runs of one process: leave it out")
    template = hashlib.sha256(context.tokenizer.chat.template().encode()).hexdigest()
    weights, dtype = model_folder.fingerprint(folder), model.runtime.compute_dtype
    key = ReferenceKey(weights, dtype, context.tokenizer.fingerprint, template)
    return ReferenceCache(name, place(cache), key, context.workdir / name)


def _places(rows: Rows[np.ndarray]) -> Iterator[_Place]:
    for row in range(len(rows.inputs)):
        segments, carries = rows.segment_ids[row], rows.weights[row] != 0
        for segment in np.unique(segments[carries & (segments > 0)]):
            where = np.flatnonzero(segments == segment)
            targets = where[carries[where]]
            # Nothing is read after the last target.
            read = rows.inputs[row, where[0] : targets[-1] + 1]
            digest = hashlib.blake2b(np.ascontiguousarray(read, "<i4").tobytes(), digest_size=16)
            for part in (targets - where[0], rows.targets[row, targets]):
                digest.update(np.ascontiguousarray(part, "<i4").tobytes())
            yield _Place(digest.digest(), row, targets)
