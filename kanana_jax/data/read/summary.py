"""A summary of the documents read from each source, as a table for people and as JSON for `data_report.json`."""

from collections.abc import Mapping
from typing import Any

from kanana_jax.data.read.meter import Progress
from kanana_jax.data.read.sources import PreparedSource
from kanana_jax.progress import duration

_HEAD = ("source", "language", "files", "MB", "documents", "held out", "MB of text", "left out")


def table(prepared: Mapping[str, PreparedSource]) -> str:
    """A line for each source, and below the table, the documents left out of each, with reasons."""
    rows, notes = [_HEAD], []
    for name, source in prepared.items():
        files, left_out = source.index.get("files", {"count": 0, "bytes": 0}), source.left_out
        train, heldout = source.index["train"], source.index["heldout"]
        rows.append(
            (
                name,
                source.lang or "-",
                f"{files['count']:,}",
                _megabytes(files["bytes"]),
                f"{train['documents']:,}",
                f"{heldout['documents']:,}",
                _megabytes(train["bytes"] + heldout["bytes"]),
                f"{left_out.count:,}",
            )
        )
        notes += [f"  {name}: left out: {sentence}" for sentence in left_out.sentences]
        if broken := source.index["broken_lines"]:
            notes.append(f"  {name}: {broken:,} broken lines were skipped")
        notes += [f"  {name}: {count:,} not taken: {reason}" for reason, count in source.index["skipped"].items()]
        if source.index.get("alone"):
            notes.append(f"  {name}: a single document, so none is held out and this source is not evaluated")
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    left = [[cell.ljust(width) for cell, width in zip(row[:2], widths)] for row in rows]
    right = [[cell.rjust(width) for cell, width in zip(row[2:], widths[2:])] for row in rows]
    lines = ["  ".join((*one, *other)) for one, other in zip(left, right)]
    return "\n".join(line.rstrip() for line in (*lines, *notes))


def about(source: PreparedSource) -> dict[str, Any]:
    """The entry of `data_report.json` about the reading of a source."""
    return {
        "files": source.index.get("files", {"count": 0, "bytes": 0}),
        "heldout_total": source.documents("heldout"),
        "broken_lines": source.index["broken_lines"],
        "skipped": source.index.get("skipped", {}),
        "left_out": source.index.get("left_out", {}),
    }


def line(progress: Progress) -> str:
    """The progress of a conversion, in one line."""
    seconds = max(progress.seconds, 1e-9)
    parts = [
        f"{_megabytes(progress.done)} of {_megabytes(progress.total)} MB of files" if progress.total else "",
        f"{progress.documents:,} documents",
        f"{progress.text_bytes / 1e6 / seconds:.1f} MB/s of text",
    ]
    if 0 < progress.share < 1 and progress.seconds > 3:
        parts.append(f"{duration(seconds * (1 - progress.share) / progress.share)} left")
    return ", ".join(filter(None, parts))


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f}" if size >= 100_000 or not size else f"{size / 1e6:.3f}"
