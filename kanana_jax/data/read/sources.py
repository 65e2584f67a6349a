"""A source: documents from anywhere, converted once to ArrayRecord shards that Grain reads at random."""

import collections
import dataclasses
import hashlib
import itertools
import json
import logging
import os
import pathlib
import re
import shutil
import time
from collections.abc import Sequence
from typing import Any

import grain

from kanana_jax import languages
from kanana_jax.config import fingerprint
from kanana_jax.data.read import origins, outputs, records
from kanana_jax.data.read.origins import Origin
from kanana_jax.data.read.record import CONVERSATION, Broken, Record, Skipped
from kanana_jax.errors import UserError
from kanana_jax.files import load_json, sync, sync_tree, write_json

log = logging.getLogger("kanana")
SHARD_BYTES = 256 << 20
SPLITS = ("train", "heldout")
_FORMAT = 2  # of the shards: since 2, records know their places
_CONTENTS = ("text", "lang", "url", "meta", *CONVERSATION)  # of a record: all but its names and its place


@dataclasses.dataclass(frozen=True)
class SourceConfig:
    """A source of documents.

    Attributes:
      path: file, folder, glob, `hf://name[/config][:split]`, `seqio://task[?module=…&split=…]` or
        `microworld://kind/lang?…`.
      lang: language of all documents, for evaluation by language; a tag in any form (`ko`, `kor_Hang`, `ko-KR`).
      text_field: the field that holds the text.
      format: of raw documents whose file names do not tell it, a key of `extract.FORMATS`.
      holdout: share of documents kept for evaluation, drawn by a hash of `split_key`.
      split_key: documents with the same value (in the record or its `meta`) are held out together, as
        translations of one page are with `doc`.
      max_documents: stop after so many; 0 takes all.
      max_broken_share: share of broken lines up to which they are counted and skipped.
    """

    path: str
    lang: str
    text_field: str = "text"
    format: str = ""
    holdout: float = 0.01
    split_key: str = "id"
    max_documents: int = 0
    max_broken_share: float = 0.001

    def __post_init__(self):
        object.__setattr__(self, "lang", languages.tag(self.lang))
        if not 0 <= self.holdout < 1:
            raise ValueError("holdout must be a share in [0, 1)")


@dataclasses.dataclass(frozen=True)
class PreparedSource:
    """A source on disk: `index.json` beside `train-*.array_record` and `heldout-*.array_record`."""

    name: str
    lang: str
    folder: pathlib.Path
    index: dict[str, Any]

    def split(self, split: str) -> grain.sources.ArrayRecordDataSource:
        shards = sorted(self.folder.glob(f"{split}-*.array_record"))
        return grain.sources.ArrayRecordDataSource([str(shard) for shard in shards])

    def documents(self, split: str) -> int:
        return self.index[split]["documents"]

    @property
    def digest(self) -> str:
        """A hash of what its documents hold, in their order, but not of their names: a part of every position."""
        return self.index.get("digest", "")

    @property
    def origins(self) -> list[Origin]:
        """Origins of its documents."""
        return origins.from_rows(self.index.get("origins", []))


@dataclasses.dataclass(frozen=True)
class Texts:
    """The training texts of some sources, a document of each in turn; iterable again and again."""

    sources: tuple[PreparedSource, ...]

    def __iter__(self):
        splits = [source.split("train") for source in self.sources]
        for index in range(max(len(split) for split in splits)):
            for split in splits:
                if index < len(split):
                    yield json.loads(split[index])["text"]


def prepare(name: str, config: SourceConfig, cache: pathlib.Path) -> PreparedSource:
    """Converts a source, or finds it converted; the same input gives the same folder.

    Files are known by what they hold: one of another size or time is hashed again, and converted only if it differs.
    Where its files are gone, documents that were converted from them under the same config are enough.

    Raises:
      ConfigError: `cache` lies in the source, which would read its own shards.
      UserError: no documents, or more broken lines than `max_broken_share`.
    """
    outputs.apart(cache, [config.path])
    folder, found = _folder(name, config, cache)
    if not found:
        log.warning(
            "source '%s': %s is gone; its documents are read as converted before: %s", name, config.path, folder
        )
    else:
        if not (folder / "index.json").is_file():
            _convert(name, config, folder, found)
        origins.save(_known(name, cache), found)
    return load_prepared(name, config, cache)


def load_prepared(name: str, config: SourceConfig, cache: pathlib.Path) -> PreparedSource:
    """The folder that `prepare` made (called by the processes that did not make it)."""
    folder, _ = _folder(name, config, cache)
    if not (folder / "index.json").is_file():
        raise UserError(f"source '{name}' is not in {cache}: the workdir must be on storage that all hosts share")
    return PreparedSource(name, config.lang, folder, load_json(folder / "index.json"))


def _folder(name: str, config: SourceConfig, cache: pathlib.Path) -> tuple[pathlib.Path, list[Origin]]:
    """The folder of a source's shards, and its files; where these are gone, the newest folder that was made of them."""
    try:
        found = _origins(name, config, cache)
        return cache / f"{name}-{_fingerprint(config, found)}", found
    except UserError:
        kept = [
            f for f in cache.glob("*/index.json") if re.fullmatch(rf"{re.escape(name)}-[0-9a-f]{{16}}", f.parent.name)
        ]
        own = fingerprint(dataclasses.asdict(config))
        kept = [file for file in kept if load_json(file).get("config") == own]
        if not kept:
            raise
        return max(kept, key=lambda file: file.stat().st_mtime_ns).parent, []


def _origins(name: str, config: SourceConfig, cache: pathlib.Path) -> list[Origin]:
    """Current origins of the source; only files with a new size or time are hashed."""
    return origins.identify(records.find(config.path, config.format), origins.load(_known(name, cache)))


def _known(name: str, cache: pathlib.Path) -> pathlib.Path:
    return cache / f"{name}.origins.json"


def _fingerprint(config: SourceConfig, found: Sequence[Origin]) -> str:
    files = [(origin.path, origin.digest) for origin in found]
    return fingerprint({"config": dataclasses.asdict(config), "files": files, "format": _FORMAT})


def is_heldout(record: Record, key: str, share: float) -> bool:
    """A stable draw: the same document is held out in every run, on every machine."""
    value = record.get(key, record.get("meta", {}).get(key, record["id"]))
    digest = hashlib.blake2b(str(value).encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") < share * 2**64


class _Shards:
    """ArrayRecord shards of one split, cut by size."""

    def __init__(self, folder: pathlib.Path, split: str):
        self.folder, self.split = folder, split
        self.documents = self.bytes = self._in_shard = self._shards = 0
        self._writer = None

    def write(self, record: Record) -> None:
        from array_record.python.array_record_module import ArrayRecordWriter

        if self._writer is None or self._in_shard >= SHARD_BYTES:
            self.close()
            path = self.folder / f"{self.split}-{self._shards:05d}.array_record"
            self._writer = ArrayRecordWriter(str(path), "group_size:1")
            self._shards, self._in_shard = self._shards + 1, 0
        data = json.dumps(record, ensure_ascii=False).encode()
        self._writer.write(data)
        self._in_shard += len(data)
        self.documents += 1
        self.bytes += len(record["text"].encode())

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def _contents(split: str, record: Record) -> bytes:
    """A document without its names: what it is read for, whatever its file is called."""
    return json.dumps([split, {k: v for k, v in record.items() if k in _CONTENTS}], sort_keys=True).encode()


def _convert(name: str, config: SourceConfig, folder: pathlib.Path, found: Sequence[Origin]) -> None:
    for left in folder.parent.glob(f"{folder.name}.*.partial"):  # by a process that was killed
        if time.time() - left.stat().st_mtime > 3600:
            shutil.rmtree(left, ignore_errors=True)
    partial = folder.with_name(f"{folder.name}.{os.getpid()}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        shards = {split: _Shards(partial, split) for split in SPLITS}
        read, broken, first_broken, digest = 0, 0, None, hashlib.blake2b(digest_size=16)
        skipped: collections.Counter[str] = collections.Counter()
        settings = {"text_field": config.text_field, "source": name, "lang": config.lang, "format": config.format}
        for item in itertools.chain.from_iterable(records.documents_of(origin, **settings) for origin in found):
            if isinstance(item, Skipped):
                skipped[item.reason] += 1
                continue
            read += 1
            if isinstance(item, Broken):
                broken, first_broken = broken + 1, first_broken or item
                if read >= 1000 and broken > 10 * config.max_broken_share * read:
                    break
                continue
            split = "heldout" if is_heldout(item, config.split_key, config.holdout) else "train"
            shards[split].write(item)
            digest.update(_contents(split, item))
            if config.max_documents and sum(s.documents for s in shards.values()) >= config.max_documents:
                break
        for s in shards.values():
            s.close()
        if first_broken is not None and broken > config.max_broken_share * read:
            raise UserError(
                f"source '{name}': {broken} of {read} lines are broken, the first is {first_broken.where}: "
                f"{first_broken.reason}; mend them or raise sources.{name}.max_broken_share"
            )
        if not shards["train"].documents:
            raise UserError(f"source '{name}' ({config.path}) has no documents to train on")
        index: dict[str, Any] = {split: {"documents": s.documents, "bytes": s.bytes} for split, s in shards.items()}
        index |= {"digest": digest.hexdigest(), "config": fingerprint(dataclasses.asdict(config))}
        index |= {"broken_lines": broken, "skipped": dict(sorted(skipped.items()))}
        index |= {"origins": [origin.row for origin in found]}
        write_json(partial / "index.json", index, indent=None)
        sync_tree(partial)
        try:
            os.replace(partial, folder)
            sync(folder.parent)
        except OSError:  # another process was faster; its result is the same
            if not (folder / "index.json").is_file():
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
