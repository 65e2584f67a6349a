"""Lookup of published data sets in a data folder, in the layouts of their publishers and hubs."""

import functools
import importlib.resources
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import yaml

from kanana_jax.errors import ConfigError
from kanana_jax.evaluation.rows import Rows, read_rows

# Paths of a part ({name}) and split ({split}) in a set's folder, without endings and the shard numbers of hubs.
PATTERNS = ("{name}/{split}", "data/{name}-{split}", "data/{name}_{split}", "{name}-{split}", "{name}_{split}")
PATTERNS += ("data/{name}/{split}", "{name}/{split}/0000")
_ONE_SPLIT = ("data/{name}", "{name}")  # if a part only has a test set
_NO_PARTS = ("{split}", "data/{split}")
_SPLITS = {"validation": ("validation", "dev", "valid", "val"), "dev": ("dev", "validation", "valid", "val")}
_ENDING = re.compile(r"(?:-\d{5}-of-\d{5})?\.(?:parquet|(?:jsonl|json|csv|tsv)(?:\.gz)?)")


@functools.cache
def table() -> Mapping[str, Mapping[str, Any]]:
    """Contents of `published.yaml`, by data set."""
    file = importlib.resources.files("kanana_jax.evaluation") / "published.yaml"
    return yaml.safe_load(file.read_text(encoding="utf-8"))


def folder(data_dir: pathlib.Path, path: str) -> pathlib.Path | None:
    """The folder of a data set; None if it does not exist."""
    name = path.rsplit("/", 1)[-1]
    names = (path, name, name.lower(), table().get(path, {}).get("folder"))
    return next((data_dir / n for n in names if n and (data_dir / n).is_dir()), None)


def find(data_dir: pathlib.Path, path: str, part: str | None, splits: Mapping[str, bool]) -> dict[str, pathlib.Path]:
    """The files of a part by split; splits without a file are omitted.

    Args:
      path, part: the harness's `dataset_path` and `dataset_name`.
      splits: the splits to look for, and whether each is the one with the questions (a file without a split in its name
        is taken for that one).

    Raises:
      ConfigError: there are several files for one split.
    """
    place = folder(data_dir, path)
    found: dict[str, pathlib.Path] = {}
    if place is None:
        return found
    for split, asked in splits.items():
        for pattern in _patterns(path, part, split, asked):
            files = _files(place / pattern)
            if len(files) > 1:
                names = " and ".join(str(f) for f in files)
                raise ConfigError(f"{names} are both the {split} split of {path}: keep one of them")
            if files:
                found[split] = files[0]
                break
    return found


def _patterns(path: str, part: str | None, split: str, asked: bool) -> list[str]:
    names = _SPLITS.get(split, (split,))
    said = table().get(path, {}).get("files", {}).get(part or "default")
    if said is not None:
        return [f"{root}{said}" for root in ("", f"{path.rsplit('/', 1)[-1]}/", "data/")]
    if part is None or part in ("default", "main", "all"):
        patterns = [p for name in names for p in (q.format(split=name) for q in _NO_PARTS)]
        if part is None:
            return patterns
    else:
        patterns = []
    spelt = dict.fromkeys((part, part.replace("_", " ").title(), part.replace(" ", "_").lower()))
    patterns += [q.format(name=n, split=s) for q in PATTERNS for n in spelt for s in names]
    return patterns + ([q.format(name=n) for q in _ONE_SPLIT for n in spelt] if asked else [])


def _files(stem: pathlib.Path) -> list[pathlib.Path]:
    """The files with this name and a known ending, with or without a shard number; these sets have one shard each."""
    if not stem.parent.is_dir():
        return []
    return sorted(f for f in stem.parent.iterdir() if f.name.startswith(stem.name) and _is_of(f, stem.name))


def _is_of(file: pathlib.Path, stem: str) -> bool:
    return _ENDING.fullmatch(file.name[len(stem) :]) is not None and file.is_file()


def read(files: Mapping[str, pathlib.Path], task: str, path: str, part: str | None) -> dict[str, Rows]:
    """The rows of each split.

    Raises:
      ConfigError: a file cannot be read, or a row lacks a column.
    """
    columns = table().get(path, {}).get("columns", [])
    asked = columns.get(part, []) if isinstance(columns, dict) else columns
    return {split: read_rows(file, task, dict.fromkeys(asked, object)) for split, file in files.items()}
