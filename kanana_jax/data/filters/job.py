"""The inline filter as a batch job: the same function over files, with any number of processes, resumable.

Documents go in chunks of a fixed size to workers and come back in order, so that every byte written is the same for
any number of workers, however often the job was stopped. Outputs grow by whole gzip members; `state.json` records
how far they are valid, and anything that a killed job wrote beyond that is cut off.
"""

import contextlib
import dataclasses
import functools
import itertools
import json
import os
import pathlib
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any

import numpy as np

from kanana_jax import languages
from kanana_jax.config import fingerprint
from kanana_jax.data.arrays import tables
from kanana_jax.data.dedup import lines, verdicts
from kanana_jax.data.filters import decontamination, job_state
from kanana_jax.data.filters.appended import Appended
from kanana_jax.data.filters.rules import FilterConfig
from kanana_jax.data.filters.totals import Totals, columns, judge_chunk, make_report, show_examples
from kanana_jax.data.quality.classifier import sha256_of
from kanana_jax.data.read import origins as origins_lib
from kanana_jax.data.read import outputs, records
from kanana_jax.data.read.origins import Origin
from kanana_jax.data.read.outputs import DROPPED, KEPT, STATE
from kanana_jax.errors import ConfigError, UserError
from kanana_jax.files import cannot_write, local_copy, place, sync, write_json
from kanana_jax.parallel.workers import ordered

SIGNALS = "signals.f32"


@dataclasses.dataclass(frozen=True)
class JobConfig:
    """Run options of a job.

    Attributes:
      workers: processes; 1: no further process.
      keep_dropped: also write dropped documents, each with `rules`.
      signals: also write every document's signals (`signals.parquet`).
      lang: language of records that do not name one.
      max_broken_share: share of broken lines up to which such lines are counted and skipped.
      format: format of raw documents whose file names do not reveal it, a key of `extract.FORMATS`.
      chunk: documents that a worker gets at once; fewer if they are long.
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
      ConfigError: `output` was started with another config or input, or lies in the input; or no filter applies to any
        document.
      UserError: no documents, too many broken lines, documents without a verdict on duplicates, a damaged
        file of an earlier start, or a disk that is full.
    """
    began = time.perf_counter()
    outputs.apart(output, [inputs])
    origins = origins_lib.identify(records.find(inputs, config.format), origins_lib.load(output / job_state.INPUTS))
    _check_duplicates(configs, origins)
    output.mkdir(parents=True, exist_ok=True)
    frozen = {key: _frozen(value) for key, value in configs.items()}
    digest = fingerprint({k: {**dataclasses.asdict(v), "files": frozen[k]} for k, v in configs.items()})
    job = {
        "config": digest,
        "inputs": inputs,
        **{k: v for k, v in dataclasses.asdict(config).items() if k != "workers"},
    }
    state = job_state.begin(output, job, origins)
    totals = Totals(state)
    if state["finished"]:
        _tidy(output, config)
        return job_state.result(output, state)
    good = {name: totals.good.get(name, (0, "")) for name in (KEPT, DROPPED, SIGNALS, "ids.txt")}
    files = {name: Appended(output / name, part) for name, part in good.items()}

    def save() -> None:
        if {key: _frozen(value) for key, value in configs.items()} != frozen:
            raise UserError(f"a file of the filters was replaced while {output} was written: name another --output")
        _save(output, state["job"], totals, files)

    try:
        source = pathlib.Path(inputs).name.split(".")[0]
        items = (x for origin in origins for x in records.lines_of(origin, source=source, format=config.format))
        chunks = itertools.islice(records.batches(items, config.chunk), totals.chunks, None)
        work = functools.partial(judge_chunk, dict(configs), config.lang, config.keep_dropped)
        for chunk in ordered(work, chunks, config.workers):
            totals.add(chunk)
            files[KEPT].write(chunk.kept)
            files[DROPPED].write(chunk.dropped)
            if config.signals:
                files[SIGNALS].write(chunk.signals.tobytes())
                files["ids.txt"].write("".join(json.dumps(i, ensure_ascii=False) + "\n" for i in chunk.ids).encode())
            if totals.chunks % config.save_every == 0:
                save()
            progress(totals.documents(), totals.bytes, time.perf_counter() - began)
        _check_totals(totals, configs, config)
        save()
        report = make_report(totals, configs, digest)
        for file in files.values():
            file.close()
        _write_reports(output, configs, config, totals, report, time.perf_counter() - began)
        written = (KEPT, DROPPED) if config.keep_dropped else (KEPT,)
        job_state.finish(output, state["job"], {name: files[name].good for name in written})
        _tidy(output, config)
    except _NothingJudged:
        for name in (*files, STATE, job_state.INPUTS):
            (output / name).unlink(missing_ok=True)
        raise
    except OSError as error:
        raise cannot_write(output, error) from error
    finally:
        with contextlib.suppress(OSError):  # a full disk, already reported
            for file in files.values():
                file.close()
    return report


def _tidy(output: pathlib.Path, config: JobConfig) -> None:
    """Removes the state from which a killed job would have resumed."""
    for name in (SIGNALS, "ids.txt", *(() if config.keep_dropped else (DROPPED,))):
        (output / name).unlink(missing_ok=True)


def _write_reports(
    output: pathlib.Path,
    configs: Mapping[str, FilterConfig],
    config: JobConfig,
    totals: Totals,
    report: Mapping[str, Any],
    seconds: float,
) -> None:
    names = columns(configs)
    if config.signals:
        _parquet(output, names)
    write_json(output / job_state.REPORT, report)
    examples = {"sample": totals.sample, "names": names, "examples": show_examples(totals, configs)}
    write_json(output / "examples.json", examples)
    write_json(output / "cost.json", {"cpu_seconds": totals.seconds, "seconds": seconds, "bytes": totals.bytes})


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


def _frozen(config: FilterConfig) -> dict[str, str]:
    """Hashes of what a config names by path: the same path with other contents is another filter."""
    copies = {model.path: local_copy(model.path) for model in config.quality.values()}
    tabled = [
        (folder, name)
        for folder, name in (
            (config.contamination, decontamination.FILE),
            (config.lines, lines.FILE),
            (config.duplicates, verdicts.FILE),
        )
        if folder
    ]
    return {
        **{str(place(path)): _sha256(str(file), _stamp(file)) for path, file in copies.items() if file.is_file()},
        **{str(place(folder) / name): tables.digest_of(local_copy(folder) / name) for folder, name in tabled},
    }


class _NothingJudged(ConfigError):
    """No filter applies to any document."""


def _check_totals(totals: Totals, configs: Mapping[str, FilterConfig], config: JobConfig) -> None:
    """Raises: _NothingJudged, or UserError for too many broken lines."""
    seen = totals.documents() + totals.broken
    if totals.broken > config.max_broken_share * max(seen, 1):
        raise UserError(
            f"{totals.broken} of {seen} lines are broken, the first is {totals.first_broken}: "
            "correct them or raise --max-broken-share"
        )
    unjudged = totals.unjudged()
    if unjudged and sum(unjudged.values()) == totals.documents():
        there = ", ".join(sorted(code or "none" for code in unjudged)[:8])
        way = "name that language in the config" if config.lang else f"give --lang {next(iter(configs))}"
        raise _NothingJudged(
            f"no filter of the config ({', '.join(configs)}) applies to any of the {totals.documents()} documents, "
            f"whose language is {there}: {way}"
        )


def _stamp(file: pathlib.Path) -> tuple[int, ...]:
    about = file.stat()
    return about.st_ino, about.st_size, about.st_mtime_ns


@functools.lru_cache(32)
def _sha256(file: str, stamp: tuple[int, ...]) -> str:
    return sha256_of(pathlib.Path(file))


def _check_duplicates(configs: Mapping[str, FilterConfig], origins: Sequence[Origin]) -> None:
    """Checks up front if every document needs a verdict; otherwise each look-up checks its own."""
    folders = {config.duplicates for config in configs.values()}
    if configs and all(folders):
        for folder in folders:
            verdicts.opened(folder).check(origins)


def _save(output: pathlib.Path, job: dict[str, Any], totals: Totals, files: Mapping[str, Appended]) -> None:
    for file in files.values():
        file.sync()
    totals.good = {name: file.good for name, file in files.items()}
    job_state.save(output, {"job": job, "finished": False, **totals.state()})


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
    sync(temporary)
    os.replace(temporary, output / "signals.parquet")
