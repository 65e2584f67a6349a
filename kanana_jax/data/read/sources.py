"""A source: documents from anywhere, converted once to ArrayRecord shards that Grain reads at random.

A source's inputs are identified by their contents. Its shards are made part by part (`convert.py`), by any number of
processes, next to their final place; the finished folder is moved there in one step.
"""

import collections
import contextlib
import dataclasses
import json
import logging
import os
import pathlib
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import grain

from kanana_jax.config import fingerprint
from kanana_jax.data.read import convert, inventory, meter, origins, outputs, records
from kanana_jax.data.read.convert import SPLITS, Part, SourceConfig
from kanana_jax.data.read.inventory import LeftOut
from kanana_jax.data.read.origins import Origin
from kanana_jax.errors import UserError
from kanana_jax.files import is_remote, load_json, locked, stage_down, sync, sync_tree, upload, write_json
from kanana_jax.parallel.workers import ordered

__all__ = ["SPLITS", "PreparedSource", "SourceConfig", "Texts", "load_prepared", "prepare", "prepare_all"]

log = logging.getLogger("kanana")
_FORMAT = 3  # of the shards: since 2, records know their places; since 3, shards are made part by part
_AHEAD = 64  # parts per worker that may wait while the first takes long


@dataclasses.dataclass(frozen=True)
class PreparedSource:
    """A source on disk: `index.json` next to `train-*.array_record` and `heldout-*.array_record`."""

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
        """A hash of its documents' contents in order, without their names: a part of every position."""
        return self.index.get("digest", "")

    @property
    def left_out(self) -> LeftOut:
        """Files of its path that are not documents, by reason."""
        return inventory.left_out_of(self.index.get("left_out", {}))

    @property
    def origins(self) -> list[Origin]:
        """Origins of its documents."""
        return origins.from_rows(self.index.get("origins", []))


@dataclasses.dataclass(frozen=True)
class Texts:
    """The training texts of some sources, one document of each in turn; iterable any number of times."""

    sources: tuple[PreparedSource, ...]

    def __iter__(self):
        splits = [source.split("train") for source in self.sources]
        for index in range(max(len(split) for split in splits)):
            for split in splits:
                if index < len(split):
                    yield json.loads(split[index])["text"]


@dataclasses.dataclass(frozen=True)
class _Job:
    """A source to be converted: its files, and the folder in which its parts are made."""

    name: str
    config: SourceConfig
    folder: pathlib.Path
    found: tuple[Origin, ...]
    left_out: LeftOut

    @property
    def making(self) -> pathlib.Path:
        return self.folder.with_name(f"{self.folder.name}.parts")

    def parts(self, threshold: int) -> list[Part]:
        groups = convert.cut(self.found, whole=self.config.max_documents > 0)
        return [
            Part(self.name, self.config, self.making, number, origins, threshold)
            for number, origins in enumerate(groups)
        ]


def prepare(name: str, config: SourceConfig, cache: pathlib.Path) -> PreparedSource:
    """Like `prepare_all`, for one source in this process."""
    return prepare_all({name: config}, cache)[name]


def prepare_all(
    configs: Mapping[str, SourceConfig],
    cache: pathlib.Path,
    workers: int | Callable[[int, int], int] = 1,
    show: meter.Show = lambda progress: None,
    tick: Callable[[int], None] = lambda size: None,
) -> dict[str, PreparedSource]:
    """Converts sources, or finds them converted; the same input gives the same folders, for any number of workers.

    Files are identified by their contents: one with another size or time is hashed again, and converted only if it
    differs. If a source's files are gone, documents converted from them under the same config are enough. Parts that
    a killed process has finished are kept.

    Args:
      workers: processes; 1: no further process; or a function of the files and bytes to be read.
      show: called once per second with the progress.
      tick: called with the bytes hashed beforehand, from several threads.

    Raises:
      ConfigError: `cache` is inside a source, which would read its own shards.
      UserError: no documents, more broken lines than `max_broken_share`, or a damaged file.
    """
    jobs: list[_Job] = []
    for name, config in configs.items():
        outputs.apart(cache, [config.place(cache)])
        folder, found, left_out = _folder(name, config, cache, tick)
        if not found:
            log.warning(
                "source '%s': %s is gone; its documents are read as converted before: %s",
                name,
                config.place(cache),
                folder,
            )
        elif not (folder / "index.json").is_file():
            jobs.append(_Job(name, config, _making_place(cache) / folder.name, tuple(found), left_out))
        else:
            origins.save(_known(name, cache), found)
    if jobs:
        if not isinstance(workers, int):
            workers = workers(sum(len(j.found) for j in jobs), sum(o.size for j in jobs for o in j.found))
        # For a bucket, one may exist already whose upload was interrupted.
        _convert([job for job in jobs if not (job.folder / "index.json").is_file()], workers, show)
        if is_remote(cache):
            for job in jobs:
                upload(job.folder, cache / job.folder.name, last=("index.json",))
                origins.save(_known(job.name, cache), job.found)
                shutil.rmtree(job.folder, ignore_errors=True)
    return {name: load_prepared(name, config, cache) for name, config in configs.items()}


def load_prepared(name: str, config: SourceConfig, cache: pathlib.Path) -> PreparedSource:
    """The folder that `prepare` made (called by the processes that did not make it).

    Shards in a bucket are downloaded to this host first, once for all of its processes (`files.staging`).
    """
    folder, _, _ = _folder(name, config, cache)
    if not (folder / "index.json").is_file():
        raise UserError(f"source '{name}' is not in {cache}: the workdir must be on storage that all hosts share")
    folder = stage_down(folder)
    return PreparedSource(name, config.lang, folder, load_json(folder / "index.json"))


def _folder(
    name: str, config: SourceConfig, cache: pathlib.Path, tick: Callable[[int], None] = lambda size: None
) -> tuple[pathlib.Path, list[Origin], LeftOut]:
    """The folder of a source's shards, and its files; if these are gone, the newest folder made from them."""
    try:
        found, left_out = records.survey(config.place(cache), config.format)
    except UserError:
        kept = [
            f for f in cache.glob("*/index.json") if re.fullmatch(rf"{re.escape(name)}-[0-9a-f]{{16}}", f.parent.name)
        ]
        own = fingerprint(config.about)
        kept = [file for file in kept if load_json(file).get("config") == own]
        if not kept:
            raise
        return max(kept, key=lambda file: file.stat().st_mtime_ns).parent, [], LeftOut()
    # As it is now; only files with a new size or time are hashed.
    found = origins.identify(found, origins.load(_known(name, cache)), tick)
    return cache / f"{name}-{_fingerprint(config, found)}", found, left_out


def _making_place(cache: pathlib.Path) -> pathlib.Path:
    """The place where sources are made: the folder itself, or for one in a bucket, a folder on this host."""
    if not is_remote(cache):
        return cache
    from kanana_jax.files.staging import cache_folder

    return cache_folder() / "made" / fingerprint(str(cache))


def _known(name: str, cache: pathlib.Path) -> pathlib.Path:
    return cache / f"{name}.origins.json"


def _fingerprint(config: SourceConfig, found: Sequence[Origin]) -> str:
    # A stage's file is in its run's folder, which may be moved.
    files = [(config.path if config.made_by else origin.address, origin.digest) for origin in found]
    return fingerprint({"config": config.about, "files": files, "format": _FORMAT})


def _convert(jobs: Sequence[_Job], workers: int, show: meter.Show) -> None:
    """Makes the shards of sources, all parts of all of them by the same workers."""
    with contextlib.ExitStack() as stack:
        for job in jobs:
            stack.enter_context(locked(job.making, folder=False))
            for left in job.folder.parent.glob(f"{job.name}-*.parts"):  # of files or a config that no longer exist
                if left != job.making and re.fullmatch(r"[0-9a-f]{16}\.parts", left.name.removeprefix(f"{job.name}-")):
                    shutil.rmtree(left, ignore_errors=True)
            job.making.mkdir(parents=True, exist_ok=True)
            # If this start is killed, the next one need not hash the files again.
            origins.save(_known(job.name, job.folder.parent), job.found)
        try:
            thresholds = {job.name: int(job.config.holdout * 2**64) for job in jobs}
            _work([part for job in jobs for part in job.parts(thresholds[job.name])], workers, show)
            # In a small source, the draw may hold out nothing, or everything.
            again = {job.name: _threshold(job, thresholds[job.name]) for job in jobs}
            _work([p for j in jobs if again[j.name] != thresholds[j.name] for p in j.parts(again[j.name])], 1, show)
            for job in jobs:
                _finish(job, again[job.name])
        except BaseException:
            for job in jobs:
                if not any(job.making.glob("part-*.json")):
                    shutil.rmtree(job.making, ignore_errors=True)
                    if not (job.folder / "index.json").is_file():
                        _known(job.name, job.folder.parent).unlink(missing_ok=True)
            raise


def _work(parts: Sequence[Part], workers: int, show: meter.Show) -> None:
    """Converts the parts that are not done yet."""
    done = {(part.name, part.number) for part in parts if part.is_done}
    left = [part for part in parts if (part.name, part.number) not in done]
    if not left:
        return
    total, before = sum(part.size for part in parts), sum(p.size for p in parts if (p.name, p.number) in done)
    with meter.metered(total, before, show) as file:
        todo = (dataclasses.replace(part, meter=file, cell=cell) for cell, part in enumerate(left))
        collections.deque(ordered(convert.convert, todo, min(workers, len(left)), _AHEAD), 0)


def _told(job: _Job, threshold: int) -> Iterator[Mapping[str, Any]]:
    """The reports of a source's parts, in their order."""
    for part in job.parts(threshold):
        yield load_json(part.about)


def _threshold(job: _Job, drawn: int) -> int:
    """The bound of draws below which documents are held out: the config's, or one that leaves some on both sides."""
    if not drawn:
        return drawn
    held = trained = 0
    low, high = 1 << 64, -1
    for about in _told(job, drawn):
        held, trained = held + about["splits"]["heldout"]["documents"], trained + about["splits"]["train"]["documents"]
        low, high = min(low, about["draws"][0]), max(high, about["draws"][1])
    if held and trained or not held + trained:
        return drawn
    if low == high:
        return 0
    return low + 1 if not held else high


def _finish(job: _Job, threshold: int) -> None:
    """Makes the finished folder of a source whose parts are done.

    Raises:
      UserError: too many broken lines, or nothing to train on; the parts are then deleted.
    """
    index = _index(job, threshold)
    try:
        _check(job, index)
    except UserError:
        shutil.rmtree(job.making, ignore_errors=True)
        _known(job.name, job.folder.parent).unlink(missing_ok=True)
        raise
    for file in job.making.glob("*.partial"):  # of a worker that was killed while it wrote
        file.unlink()
    write_json(job.making / "index.json", {k: v for k, v in index.items() if k not in ("read", "first")}, indent=None)
    sync_tree(job.making)
    os.replace(job.making, job.folder)
    sync(job.folder.parent)
    for file in job.folder.glob("part-*.json"):
        file.unlink()


def _index(job: _Job, threshold: int) -> dict[str, Any]:
    splits = {split: {"documents": 0, "bytes": 0} for split in SPLITS}
    sequence, skipped = convert.Ordered(), collections.Counter[str]()
    left_out, broken, read, first = [job.left_out], 0, 0, ""
    low, high = 1 << 64, -1
    for about in _told(job, threshold):
        for split in SPLITS:
            for key in ("documents", "bytes"):
                splits[split][key] += about["splits"][split][key]
        sequence.join(*about["sequence"])
        skipped.update(about["skipped"])
        left_out.append(inventory.left_out_of(about["left_out"]))
        low, high = min(low, about["draws"][0]), max(high, about["draws"][1])
        broken, read, first = broken + about["broken"], read + about["read"], first or about["first_broken"]
    return {
        **splits,
        "digest": sequence.digest,
        "config": fingerprint(job.config.about),
        "broken_lines": broken,
        "skipped": dict(sorted(skipped.items())),
        "alone": job.config.holdout > 0 and low == high,
        "files": {"count": len(job.found), "bytes": sum(origin.size for origin in job.found)},
        "left_out": inventory.joined(left_out).as_json(),
        "origins": [origin.row for origin in job.found],
        "read": read,
        "first": first,
    }


def _check(job: _Job, index: Mapping[str, Any]) -> None:
    name, broken, read = job.name, index["broken_lines"], index["read"]
    if broken > job.config.max_broken_share * read:
        raise UserError(
            f"source '{name}': {broken} of {read} lines are broken, the first is {index['first']}: correct them or "
            f"raise sources.{name}.max_broken_share"
        )
    if not index["train"]["documents"]:
        left_out = inventory.left_out_of(index["left_out"])
        why = f": left out are {left_out}" if left_out else ""
        if job.config.made_by:
            why = f": stage '{job.config.made_by}' kept none; give it more input, or remove the stages that read them"
        raise UserError(f"source '{name}' ({job.config.path}) has no documents to train on{why}")
