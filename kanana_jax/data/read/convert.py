"""Conversion of one part of a source to ArrayRecord shards: the unit of work, and of resuming.

A part is a run of files. The division of a source into parts depends only on its files, and every part has shards
of its own, so that the bytes written are the same for any number of workers, and a job that was killed does the parts
that are missing.
"""

import collections
import dataclasses
import hashlib
import json
import os
import pathlib
import time
from collections.abc import Iterator, Sequence
from typing import Any

from kanana_jax import languages
from kanana_jax.data.read import language, meter, records
from kanana_jax.data.read.inventory import Counter
from kanana_jax.data.read.origins import Origin
from kanana_jax.data.read.record import CONVERSATION, FORMS, Broken, Record, Skipped, form_of
from kanana_jax.files import load_json, sync, write_json

SHARD_BYTES = 256 << 20
SPLITS = ("train", "heldout")
# Of a part: enough of them for many workers, each long enough to be worth a shard.
MIN_PART, MAX_PART, PARTS, MAX_FILES = 8 << 20, 256 << 20, 256, 2000
_CONTENTS = ("lang", "url", "meta", *CONVERSATION)  # of a record, beside its text: all but its names and its place
_MAX_REASONS = 20
_SAMPLE = 20_000  # characters by which a document's language is identified
_EVERY_S = 0.5
# Digests of documents d₁ … dₙ are joined to Σ dᵢ·Rⁿ⁻ⁱ mod P, which parts can be joined by; P is prime.
_P = (1 << 127) - 1
_R = int.from_bytes(hashlib.blake2b(b"kanana:sequence", digest_size=16).digest(), "big") % _P


@dataclasses.dataclass(frozen=True)
class SourceConfig:
    """The origin of a source's documents.

    Attributes:
      path: a file, folder, glob, `hf://name[/config][:split]`, `seqio://task[?module=…&split=…]` or
        `microworld://kind/lang?…`.
      lang: language of all documents, for evaluation by language; a tag in any form (`ko`, `kor_Hang`, `ko-KR`).
      text_field: the field that holds the text.
      format: format of raw documents whose file names do not reveal it, a key of `extract.FORMATS`.
      among: languages of sources that share these files: a document belongs to the one that most of it is in, by CLD2,
        or to the first if it is in none of them; empty: all documents belong to this source.
      form: form of this source's records, if files contain several: `text`, `messages` (conversations),
        `chosen` (preference pairs) or `prompt`; empty: all forms.
      holdout: share of documents kept for evaluation, selected by a hash of `split_key`; unless 0, at least one
        document of a source with two or more.
      split_key: documents with the same value (in the record or its `meta`) are held out together, as
        translations of one page are with `doc`.
      max_documents: stop after this number; 0 takes all.
      made_by: the stage of the same run that writes the file; `path` is then its name in that stage's folder, and it
        is read once the stage has ended.
      max_broken_share: share of broken lines up to which such lines are counted and skipped. Files of one document each
        that cannot be read are always left out, counted and named.
    """

    path: str
    lang: str
    text_field: str = "text"
    format: str = ""
    among: tuple[str, ...] = ()
    form: str = ""
    holdout: float = 0.01
    split_key: str = "id"
    max_documents: int = 0
    max_broken_share: float = 0.001
    made_by: str = ""

    def __post_init__(self):
        object.__setattr__(self, "lang", languages.tag(self.lang))
        object.__setattr__(self, "among", tuple(map(languages.tag, self.among)))
        if not 0 <= self.holdout < 1:
            raise ValueError("holdout must be a share in [0, 1)")
        if self.among and self.lang not in self.among:
            raise ValueError(f"among must hold the source's own language '{self.lang}'")
        if self.form and self.form not in FORMS:
            raise ValueError(f"form must be empty or one of {', '.join(FORMS)}, not '{self.form}'")

    @property
    def about(self) -> dict[str, Any]:
        """Its values, JSON-safe; without those that shards made by earlier versions do not know and that are unset."""
        values = dataclasses.asdict(self)
        return {key: value for key, value in values.items() if value or key not in ("form", "made_by")}

    def place(self, cache: pathlib.Path) -> str:
        """The path or address to read.

        Args:
          cache: of the shards; the folders of a run's stages lie beside it.
        """
        return str(cache.parent / self.made_by / self.path) if self.made_by else self.path


@dataclasses.dataclass(frozen=True)
class Part:
    """A run of a source's files.

    Attributes:
      folder: gets the shards, and `part-N.json` once they are whole.
      threshold: documents whose draw from [0, 2⁶⁴) is below it are held out.
      meter: see `meter.note`; `cell` is this part's in it.
    """

    name: str
    config: SourceConfig
    folder: pathlib.Path
    number: int
    origins: tuple[Origin, ...]
    threshold: int
    meter: str = ""
    cell: int = 0

    @property
    def about(self) -> pathlib.Path:
        return self.folder / f"part-{self.number:06d}.json"

    @property
    def is_done(self) -> bool:
        return self.about.is_file() and load_json(self.about).get("threshold") == self.threshold

    @property
    def size(self) -> int:
        """Bytes of its files."""
        return sum(origin.size for origin in self.origins)


def cut(origins: Sequence[Origin], whole: bool) -> Iterator[tuple[Origin, ...]]:
    """The files of each part, determined only by sizes.

    Args:
      whole: whether to make a single part.
    """
    sizes = [origin.size for origin in origins]
    limit = min(max(sum(sizes) // PARTS, MIN_PART), MAX_PART)
    held: list[Origin] = []
    size = 0
    for origin, own in zip(origins, sizes):
        if held and not whole and (size + own > limit or len(held) >= MAX_FILES or origin.is_address):
            yield tuple(held)
            held, size = [], 0
        held.append(origin)
        size += own
    if held:
        yield tuple(held)


def draw(record: Record, key: str) -> int:
    """A number below 2⁶⁴ from a document's key: the same in every run, on every machine."""
    value = record.get(key, record.get("meta", {}).get(key, record["id"]))
    digest = hashlib.blake2b(str(value).encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big")


@dataclasses.dataclass
class Ordered:
    """A hash of documents in order; the hash of a whole follows from the hashes of its parts."""

    count: int = 0
    value: int = 0

    def add(self, digest: bytes) -> None:
        self.value = (self.value * _R + int.from_bytes(digest, "big")) % _P
        self.count += 1

    def join(self, count: int, value: int) -> None:
        self.value = (self.value * pow(_R, count, _P) + value) % _P
        self.count += count

    @property
    def digest(self) -> str:
        return f"{self.count:x}-{self.value:032x}"


class _Shards:
    """ArrayRecord shards of one split of a part, cut by size."""

    def __init__(self, part: Part, split: str):
        self._part, self._split = part, split
        self.documents = self.bytes = self._in_shard = 0
        self.paths: list[pathlib.Path] = []
        self._writer = None

    def write(self, record: Record, size: int) -> None:
        from array_record.python.array_record_module import ArrayRecordWriter

        if self._writer is None or self._in_shard >= SHARD_BYTES:
            self.close()
            name = f"{self._split}-{self._part.number:06d}-{len(self.paths):03d}.array_record"
            self.paths.append(self._part.folder / name)
            self._writer = ArrayRecordWriter(str(self.paths[-1]), "group_size:1")
            self._in_shard = 0
        data = json.dumps(record, ensure_ascii=False).encode()
        self._writer.write(data)
        self._in_shard += len(data)
        self.documents += 1
        self.bytes += size

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


class _Converting:
    """Counts kept while a part is read."""

    def __init__(self, part: Part):
        self.part = part
        self.shards = {split: _Shards(part, split) for split in SPLITS}
        self.sequence, self.skipped, self.left_out = Ordered(), collections.Counter[str](), Counter()
        self.read = self.broken = self.text_bytes = 0
        self.first_broken = ""
        self.low, self.high = 1 << 64, -1
        self._noted = 0.0

    @property
    def documents(self) -> int:
        return sum(shards.documents for shards in self.shards.values())

    def take(self, item: Record | Broken, is_document: bool, origin: Origin) -> None:
        if isinstance(item, Skipped):
            self.skipped[item.reason] += 1
        elif isinstance(item, Broken) and is_document:
            self.left_out.add(self._reason(item, origin), item.where.removeprefix(origin.root))
        elif isinstance(item, Broken):
            self.read, self.broken = self.read + 1, self.broken + 1
            self.first_broken = self.first_broken or f"{item.where}: {item.reason}"
        elif self.part.config.form and form_of(item) != self.part.config.form:
            self.skipped["of another form, for its own source"] += 1
        elif _is_of_another(item, self.part.config):
            self.skipped["in another language, for its own source"] += 1
        else:
            self._write(item)

    def _write(self, record: Record) -> None:
        self.read += 1
        at = draw(record, self.part.config.split_key)
        self.low, self.high = min(self.low, at), max(self.high, at)
        split = "heldout" if at < self.part.threshold else "train"
        text = record["text"].encode()
        rest = {key: value for key, value in record.items() if key in _CONTENTS}
        digest = hashlib.blake2b(text, digest_size=16)
        digest.update(json.dumps([split, rest], sort_keys=True).encode())
        self.sequence.add(digest.digest())
        self.shards[split].write(record, len(text))
        self.text_bytes += len(text)

    def _reason(self, item: Broken, origin: Origin) -> str:
        if not os.path.isdir(origin.name) and origin.size == 0:
            return "empty (0 bytes)"
        reason = "holds no text" if item.reason.startswith("field 'text' is empty") else item.reason.partition(" (")[0]
        known = self.left_out.result.reasons
        return reason if reason in known or len(known) < _MAX_REASONS else "not readable for other reasons"

    def note(self, done: int, now: bool = False) -> None:
        """Reports progress, about twice per second."""
        if self.part.meter and (now or time.monotonic() - self._noted > _EVERY_S):
            self._noted = time.monotonic()
            meter.note(self.part.meter, self.part.cell, done, self.documents, self.text_bytes)

    def close(self) -> dict[str, Any]:
        """Writes what is still held; what `part-N.json` says."""
        for shards in self.shards.values():
            shards.close()
            for path in shards.paths:
                sync(path)
        return {
            "threshold": self.part.threshold,
            "splits": {split: {"documents": s.documents, "bytes": s.bytes} for split, s in self.shards.items()},
            "sequence": [self.sequence.count, self.sequence.value],
            "draws": [self.low, self.high],
            "read": self.read,
            "broken": self.broken,
            "first_broken": self.first_broken,
            "skipped": dict(self.skipped),
            "left_out": self.left_out.result.as_json(),
        }


def convert(part: Part) -> int:
    """Writes a part's shards and then its `part-N.json`; returns its number.

    Raises:
      UserError: a file that is damaged, or changed since it was found.
    """
    for left in part.folder.glob(f"*-{part.number:06d}-*.array_record"):  # by a process that was killed
        left.unlink()
    config, state, done = part.config, _Converting(part), 0
    settings = {"text_field": config.text_field, "source": part.name, "lang": config.lang, "format": config.format}
    for origin in part.origins:
        is_document, before, size = records.is_document(origin, config.format), state.text_bytes, origin.size
        has_items = False
        for item in records.documents_of(origin, **settings):
            has_items = True
            state.take(item, is_document, origin)
            state.note(done + min(size, state.text_bytes - before))
            if _is_enough(state, config):
                break
        if not has_items and not origin.is_address:
            state.left_out.add("without documents", origin.name.removeprefix(origin.root))
        done += size
        state.note(done)
        if _is_enough(state, config):
            break
    about = state.close()
    write_json(part.about, about, indent=None)
    state.note(part.size, now=True)
    return part.number


def _is_enough(state: _Converting, config: SourceConfig) -> bool:
    if config.max_documents and state.documents >= config.max_documents:
        return True
    return state.read >= 1000 and state.broken > 10 * config.max_broken_share * state.read


def _is_of_another(record: Record, config: SourceConfig) -> bool:
    """Returns whether the document belongs to another source that shares the files."""
    if not config.among:
        return False
    shares = language.detect(record["text"][:_SAMPLE])
    return max(config.among, key=lambda lang: shares.get(lang, 0.0)) != config.lang
