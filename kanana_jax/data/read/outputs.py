"""Checks that a job's outputs are not read as inputs, nor dropped documents of an earlier job."""

import contextlib
import fnmatch
import glob
import json
import os
import pathlib
from collections.abc import Generator, Iterable, Sequence

from kanana_jax.errors import ConfigError, UserError
from kanana_jax.files import STORES, is_remote, locked, mirrored, place

KEPT, DROPPED, STATE = "kept.jsonl.gz", "dropped.jsonl.gz", "state.json"
# Outputs of jobs that look like documents but are not, or that hold dropped documents.
_RESULTS = (DROPPED, "duplicates.jsonl", "labels.jsonl", "report.html", "ids.txt", "signals.parquet")
_MARKS = ("report.json", STATE)


def refuse_results(path: str, files: Sequence[pathlib.Path]) -> None:
    """Refuses files of an earlier job that a folder or glob also matches, and the documents of an unfinished job.

    Raises:
      UserError: names the file.
    """
    whole: dict[pathlib.Path, bool] = {}
    for file in files:
        if file.name == KEPT and not _finished(file.parent):
            raise UserError(f"{file} belongs to a job that has not finished: run that again first")
        if file.name in _RESULTS and str(file) != os.path.expanduser(path):
            marked = whole.get(file.parent)
            if marked is None:
                marked = whole[file.parent] = any((file.parent / mark).is_file() for mark in _MARKS)
            if marked:
                raise UserError(
                    f"'{path}' holds {file}, which an earlier job wrote next to its report: "
                    f"name only the documents (for a filter, {file.parent / KEPT}), or move that folder away"
                )


def _finished(folder: pathlib.Path) -> bool:
    """False only if a filter job is being resumed."""
    try:
        return bool(json.loads((folder / STATE).read_text(encoding="utf-8"))["finished"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return True


def apart(output: pathlib.Path, inputs: Iterable[str]) -> None:
    """Refuses an output that is one of its inputs, is inside one, or would be matched by one the next time.

    Args:
      output: file or folder, which need not exist.

    Raises:
      ConfigError: names both.
    """
    if is_remote(output):
        _apart_in_bucket(output, inputs)
        return
    own = pathlib.Path(os.path.realpath(output.expanduser()))
    for given in inputs:
        if "://" in given:
            continue
        if _meet(own, given):
            raise ConfigError(
                f"{output} and the input '{given}' overlap, so the output would be read as "
                "documents: choose an --output outside the inputs"
            )


def _apart_in_bucket(output: pathlib.Path, inputs: Iterable[str]) -> None:
    own = output.resolve()
    for given in inputs:
        if given.startswith(tuple(f"{scheme}:/" for scheme in STORES)):
            above = place(given)
            while glob.has_magic(str(above)):
                above = above.parent
            if own.is_relative_to(above.resolve()) or above.resolve().is_relative_to(own):
                raise ConfigError(
                    f"{output} and the input '{given}' overlap, so the output would be read as "
                    "documents: choose an --output outside the inputs"
                )


@contextlib.contextmanager
def writing(output: pathlib.Path, inputs: Iterable[str], *, folder: bool = True) -> Generator[pathlib.Path]:
    """Holds the lock of an output that is separate from its inputs, and yields the place to write to.

    That is the output itself, or for a folder in a bucket, a local one that is uploaded there (`files.mirrored`).

    Raises:
      ConfigError: it is not separate; nothing has been written yet.
      UserError: another process writes there.
    """
    apart(output, inputs)
    if not folder:
        with locked(output, folder=False):
            yield output
    else:
        with mirrored(output, _MARKS) as local:
            yield local


def _meet(own: pathlib.Path, given: str) -> bool:
    expanded = os.path.expanduser(given)
    if not glob.has_magic(expanded) or os.path.exists(expanded):
        real = pathlib.Path(os.path.realpath(expanded))
        if real.is_dir() and own.is_relative_to(real):
            return True
        found = real.rglob("*") if real.is_dir() else [real]
    else:
        head = pathlib.Path(expanded)
        while glob.has_magic(str(head)):
            head = head.parent
        pattern = pathlib.Path(expanded).relative_to(head).parts
        real = pathlib.Path(os.path.realpath(head))
        if own.is_relative_to(real) and _reaches(pattern, own.relative_to(real).parts):
            return True
        found = map(pathlib.Path, glob.iglob(expanded, recursive=True))
    # Symbolic links lead into the output too.
    return any(file.is_file() and pathlib.Path(os.path.realpath(file)).is_relative_to(own) for file in found)


def _reaches(pattern: Sequence[str], parts: Sequence[str]) -> bool:
    """Returns whether a glob matches a path, or may match something below it."""
    if not parts:
        return True
    if not pattern:
        return False
    if pattern[0] == "**":
        return _reaches(pattern[1:], parts) or _reaches(pattern, parts[1:])
    return fnmatch.fnmatchcase(parts[0], pattern[0]) and _reaches(pattern[1:], parts[1:])
