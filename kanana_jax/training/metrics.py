"""Writers of a run's figures: `metrics.jsonl`, TensorBoard events, the terminal."""

import contextlib
import json
import os
import pathlib
import sys
from collections.abc import Callable, Iterator
from typing import Any, Protocol, runtime_checkable

from kanana_jax.files import is_remote, scratch, upload_file, whole_file

# A line of `metrics.jsonl`: `step` and `tokens`, and either the figures of a log step, or `eval` (the figures of an
# evaluation, by name) and the `score` that ranks checkpoints.
Line = dict[str, Any]


class Writer(Protocol):
    def write(self, line: Line) -> None: ...

    def close(self) -> None: ...


@runtime_checkable
class Flushable(Writer, Protocol):
    """A writer into files of the workdir, which may be in a bucket."""

    def flush(self) -> None:
        """Transfers the lines written so far to the workdir; called at every checkpoint."""
        ...


# Makes a stage's writers beyond the engine's own, given its folder and the step that it resumes from.
MakeWriters = Callable[[pathlib.Path, int], list[Writer]]


class JsonLines:
    """`metrics.jsonl`; lines of an interrupted run that will be written again are dropped first.

    In a bucket, where files cannot be appended to, it is a local file that `flush` uploads whole: a lost host
    loses the lines since the last checkpoint, which the resumed run writes again.

    Args:
      from_step: lines after it are dropped.
      judged: evaluations after it are dropped too.
    """

    def __init__(self, path: pathlib.Path, from_step: int, judged: int | None = None):
        judged = from_step if judged is None else judged
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = []
        if path.exists():
            for text in path.read_text(encoding="utf-8").splitlines():
                try:
                    line = json.loads(text)
                except ValueError:  # the half line of a killed process
                    continue
                if line["step"] <= (judged if "eval" in line else from_step):
                    kept.append(text + "\n")
            with whole_file(path) as temporary:
                temporary.write_text("".join(kept), encoding="utf-8")
        self._path, self._scratch = path, contextlib.ExitStack()
        local = path
        if is_remote(path):
            local = self._scratch.enter_context(scratch(path)) / path.name
            local.write_text("".join(kept), encoding="utf-8")
        self._file = local.open("a", encoding="utf-8", buffering=1)

    def write(self, line: Line) -> None:
        self._file.write(json.dumps(line) + "\n")
        os.fsync(self._file.fileno())

    def flush(self) -> None:
        if is_remote(self._path):
            upload_file(pathlib.Path(self._file.name), self._path)

    def close(self) -> None:
        self._file.close()
        with self._scratch:
            self.flush()


class TensorBoard:
    """TensorBoard events, by a writer that needs no TensorFlow."""

    def __init__(self, folder: pathlib.Path, from_step: int):
        from tensorboardX import SummaryWriter

        self._folder, self._scratch = folder, contextlib.ExitStack()
        self._local = self._scratch.enter_context(scratch(folder)) if is_remote(folder) else folder
        self._writer = SummaryWriter(str(self._local), purge_step=from_step + 1, write_to_disk=True)

    def write(self, line: Line) -> None:
        for name, value in scalars(line):
            if name != "step":
                self._writer.add_scalar(name, value, line["step"])

    def flush(self) -> None:
        self._writer.flush()
        self._upload()

    def close(self) -> None:
        self._writer.close()
        with self._scratch:
            self._upload()

    def _upload(self) -> None:
        """Uploads this start's event file to the bucket; those of earlier starts stay."""
        if is_remote(self._folder):
            for file in self._local.iterdir():
                upload_file(file, self._folder / file.name)


def scalars(line: Line, prefix: str = "") -> Iterator[tuple[str, float]]:
    """Yields every number of a line with its path, such as `eval/bits_per_byte/lang/ko`."""
    for name, value in line.items():
        if isinstance(value, dict):
            yield from scalars(value, f"{prefix}{name}/")
        elif isinstance(value, (int, float)):
            yield prefix + name, value


class Terminal:
    """A progress bar with ETA on a terminal, plain lines elsewhere."""

    def __init__(self, stage: str, total_steps: int, from_step: int):
        self._stage, self._total = stage, total_steps
        self._progress = None
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import (
                BarColumn,
                MofNCompleteColumn,
                Progress,
                TextColumn,
                TimeElapsedColumn,
                TimeRemainingColumn,
            )

            self._progress = Progress(
                TextColumn("[bold]{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[figures]}"),
                console=Console(stderr=True),
            )
            self._progress.start()
            self._task = self._progress.add_task(stage, total=total_steps, completed=from_step, figures="")

    def write(self, line: Line) -> None:
        figures = _figures(line)
        if self._progress is not None:
            if "eval" in line:
                self._progress.console.print(f"{self._stage} step {line['step']}: {figures}")
            else:
                self._progress.update(self._task, completed=line["step"], figures=figures)
        else:
            print(f"{self._stage} step {line['step']}/{self._total}  {figures}", file=sys.stderr, flush=True)

    def close(self) -> None:
        if self._progress is not None:
            self._progress.stop()


def _figures(line: Line) -> str:
    if "eval" in line:
        parts = []
        for name, figures in line["eval"].items():
            if isinstance(figures, dict):
                languages = {key.removeprefix("lang/"): x for key, x in figures.items() if key.startswith("lang/")}
                parts += [f"held-out {name.replace('_', ' ')}"] if languages else []
                parts += [f"{key} {value:.3f}" for key, value in languages.items()]
            else:
                parts.append(f"{name.replace('_', ' ')} {figures:.3f}")
        for task, metrics in line["eval"].get("tasks", {}).items():
            parts += [f"{task} {name} {value:.3f}" for name, value in metrics.items() if not name.endswith("_stderr")]
        return "  ".join(parts)
    parts = [f"loss {line['loss']:.4f}" if "loss" in line else f"tail {line['tail_mass']:.4f}"]
    if line.get("tokens_per_s"):
        parts.append(f"{line['tokens_per_s']:,.0f} tok/s")
        parts.append(f"MFU {100 * line['mfu']:.0f}%")
        parts.append(f"wait {100 * line['data_wait_share']:.1f}%")
        parts.append(f"ETA {_duration(line['eta_s'])}")
    return "  ".join(parts)


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
