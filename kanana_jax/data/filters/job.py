"""The inline filter as a batch job: the same function over files, with any number of processes, resumable.

Documents go in chunks of a fixed size to workers and come back in order, so that every byte written is the same for
any number of workers and however often the job was stopped. Outputs grow by whole gzip members; `state.json` says
how far they are good, and what a killed job wrote beyond is cut off.
"""

import collections
import concurrent.futures
import contextlib
import dataclasses
import functools
import hashlib
import itertools
import json
import os
import pathlib
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any

import numpy as np

from kanana_jax import languages
from kanana_jax.config import fingerprint
from kanana_jax.data.filters.rules import FilterConfig
from kanana_jax.data.filters.totals import Chunk, Totals, columns, judge_chunk, make_report, show_examples
from kanana_jax.data.read import records
from kanana_jax.errors import ConfigError, UserError
from kanana_jax.files import load_json, read_json, write_json

KEPT, DROPPED, SIGNALS = "kept.jsonl.gz", "dropped.jsonl.gz", "signals.f32"


@dataclasses.dataclass(frozen=True)
class JobConfig:
    """How a job runs.

    Attributes:
      workers: processes; 1 works in this one.
      keep_dropped: also write dropped documents, each with `rules`.
      signals: also write every document's signals (`signals.parquet`).
      lang: language of records that do not say theirs.
      max_broken_share: share of broken lines up to which they are counted and skipped.
      format: of raw documents whose file names do not tell it, a key of `extract.FORMATS`.
      chunk: documents that a worker gets at once; fewer where they are long.
      save_every: chunks between two saves.
    """

    workers: int = 1
    keep_dropped: bool = False
    signals: bool = False
    lang: str = ""
    max_broken_share: float = 0.001
    format: str = ""
    chunk: int = 128
    save_every: int = 64

    def __post_init__(self):
        object.__setattr__(self, "lang", languages.tag(self.lang))
        if min(self.workers, self.chunk, self.save_every) < 1:
            raise ValueError("workers must be at least 1, and so must chunk and save_every")


def run(
    configs: Mapping[str, FilterConfig],
    inputs: str,
    output: pathlib.Path,
    config: JobConfig = JobConfig(),
    progress: Callable[[int, int, float], None] = lambda documents, size, seconds: None,
) -> dict[str, Any]:
    """Filters all documents at `inputs` into `output` and returns what `report.json` holds.

    Args:
      inputs: file, folder or glob, see `records.read`.
      progress: called after each chunk with documents, bytes and seconds so far.

    Raises:
      ConfigError: `output` was begun with another config or input; or no filter applies to any document.
      UserError: no documents, too many broken lines, or a disk that is full.
    """
    began = time.perf_counter()
    output.mkdir(parents=True, exist_ok=True)
    digest = fingerprint({k: {**dataclasses.asdict(v), "files": _frozen(v)} for k, v in configs.items()})
    job = {
        "config": digest,
        "inputs": inputs,
        **{k: v for k, v in dataclasses.asdict(config).items() if k != "workers"},
    }
    state_file, report_file = output / "state.json", output / "report.json"
    state = read_json(state_file)
    if state is not None and state["job"] != job:
        raise ConfigError(f"{output} was begun with another config or input: use those, or name another --output")
    totals = Totals(state)
    if state is not None and state["finished"]:
        return load_json(report_file)
    files = {name: _Appended(output / name, totals.sizes.get(name, 0)) for name in (KEPT, DROPPED, SIGNALS, "ids.txt")}
    try:
        items = records.read_lines(inputs, source=pathlib.Path(inputs).name.split(".")[0], format=config.format)
        chunks = itertools.islice(records.batches(items, config.chunk), totals.chunks, None)
        work = functools.partial(judge_chunk, dict(configs), config.lang, config.keep_dropped)
        for chunk in _ordered(work, chunks, config.workers):
            totals.add(chunk)
            files[KEPT].write(chunk.kept)
            files[DROPPED].write(chunk.dropped)
            if config.signals:
                files[SIGNALS].write(chunk.signals.tobytes())
                files["ids.txt"].write("".join(json.dumps(i, ensure_ascii=False) + "\n" for i in chunk.ids).encode())
            if totals.chunks % config.save_every == 0:
                _save(state_file, job, totals, files, finished=False)
            progress(totals.documents(), totals.bytes, time.perf_counter() - began)
        seen = totals.documents() + totals.broken
        if totals.broken > config.max_broken_share * max(seen, 1):
            raise UserError(
                f"{totals.broken} of {seen} lines are broken, the first is {totals.first_broken}; "
                "mend them or raise --max-broken-share"
            )
        _check_judged(totals, configs, config.lang)
        _save(state_file, job, totals, files, finished=False)
        report = make_report(totals, configs, digest)
        for file in files.values():
            file.close()
        if config.signals:
            _parquet(output, columns(configs))
        for name in (SIGNALS, "ids.txt", *(() if config.keep_dropped else (DROPPED,))):
            (output / name).unlink(missing_ok=True)
        write_json(report_file, report)
        write_json(
            output / "examples.json",
            {"sample": totals.sample, "names": columns(configs), "examples": show_examples(totals, configs)},
        )
        seconds = time.perf_counter() - began
        write_json(output / "cost.json", {"cpu_seconds": totals.seconds, "seconds": seconds, "bytes": totals.bytes})
        totals.sizes = {KEPT: files[KEPT].size}
        write_json(state_file, {"job": job, "finished": True}, indent=None)
    except _NothingJudged:
        for name in (*files, state_file.name):
            (output / name).unlink(missing_ok=True)
        raise
    except OSError as error:
        raise UserError(f"cannot write to {output} ({error.strerror}): free space, then run it again") from error
    finally:
        for file in files.values():
            file.close()
    return report


@contextlib.contextmanager
def progress_bar() -> Generator[Callable[[int, int, float], None]]:
    """Shows a job's progress: a bar on a terminal, a line every half minute elsewhere."""
    import sys

    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    if sys.stderr.isatty():
        from rich.console import Console

        text = TextColumn("{task.description}")
        with Progress(SpinnerColumn(), text, TimeElapsedColumn(), console=Console(stderr=True)) as bar:
            task = bar.add_task("filtering")
            yield lambda documents, size, seconds: bar.update(task, description=_line(documents, size, seconds))
        return
    last = 0.0

    def show(documents: int, size: int, seconds: float) -> None:
        nonlocal last
        if seconds - last > 30:
            last = seconds
            print(_line(documents, size, seconds), file=sys.stderr, flush=True)

    yield show


def _line(documents: int, size: int, seconds: float) -> str:
    return f"{documents:,} documents  {size / 1e6:,.1f} MB  {size / 1e6 / max(seconds, 1e-9):.1f} MB/s"


class _Appended:
    """A file that grows by whole members; whatever lies beyond the size that is known to be good is cut off."""

    def __init__(self, path: pathlib.Path, size: int):
        self._file = path.open("ab")
        self._file.truncate(size)
        self.size = size

    def write(self, data: bytes) -> None:
        self._file.write(data)
        self.size += len(data)

    def sync(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


def _frozen(config: FilterConfig) -> dict[str, str]:
    """Hashes of what a config names by path: the same path with other verdicts or weights is another filter."""
    files = [pathlib.Path(model.path) for model in config.quality.values()]
    for folder, name in (
        (config.contamination, "contamination.json"),
        (config.lines, "report.json"),
        (config.duplicates, "report.json"),
    ):
        if folder:
            files.append(pathlib.Path(folder) / name)
    return {str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in files if file.is_file()}


class _NothingJudged(ConfigError):
    """No filter applies to any document."""


def _check_judged(totals: Totals, configs: Mapping[str, FilterConfig], lang: str) -> None:
    """Raises: _NothingJudged."""
    unjudged = totals.unjudged()
    if unjudged and sum(unjudged.values()) == totals.documents():
        there = ", ".join(sorted(code or "none" for code in unjudged)[:8])
        way = "name theirs in the config" if lang else f"say --lang {next(iter(configs))}"
        raise _NothingJudged(
            f"no filter of the config ({', '.join(configs)}) applies to any of the {totals.documents()} documents, "
            f"whose language is {there}: {way}"
        )


def _save(
    path: pathlib.Path, job: dict[str, Any], totals: Totals, files: Mapping[str, _Appended], finished: bool
) -> None:
    for file in files.values():
        file.sync()
    totals.sizes = {name: file.size for name, file in files.items()}
    write_json(path, {"job": job, "finished": finished, **totals.state()}, indent=None)


def _ordered(work: Callable[[list], Chunk], chunks: Iterator[list], workers: int) -> Iterator[Chunk]:
    """`map` over processes with a bounded number of chunks under way."""
    if workers == 1:
        yield from map(work, chunks)
        return
    import multiprocessing

    with concurrent.futures.ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        waiting = collections.deque(pool.submit(work, chunk) for chunk in itertools.islice(chunks, 4 * workers))
        while waiting:
            done = waiting.popleft().result()
            waiting.extend(pool.submit(work, chunk) for chunk in itertools.islice(chunks, 1))
            yield done


def _parquet(output: pathlib.Path, names: tuple[str, ...]) -> None:
    import pyarrow
    from pyarrow import parquet

    schema = pyarrow.schema([("id", pyarrow.string()), *((name, pyarrow.float32()) for name in names)])
    temporary = output / "signals.parquet.partial"
    rows = 1 << 16
    with (
        temporary.open("wb") as made,
        (output / SIGNALS).open("rb") as values,
        (output / "ids.txt").open(encoding="utf-8") as ids,
        parquet.ParquetWriter(made, schema) as writer,
    ):
        while block := values.read(rows * 4 * len(names)):
            table = np.frombuffer(block, np.float32).reshape(-1, len(names))
            own = [json.loads(line) for line in itertools.islice(ids, len(table))]
            arrays = [pyarrow.array(own), *(pyarrow.array(column) for column in table.T)]
            writer.write_table(pyarrow.table(arrays, schema=schema))
    os.replace(temporary, output / "signals.parquet")
