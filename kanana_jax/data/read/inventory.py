"""The contents of a path: files that can be read, and those that are left out, by reason and with their names.

Folders of this machine and of buckets, whose objects are listed and not fetched.
"""

import dataclasses
import os
import pathlib
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, cast

from kanana_jax.files import is_remote

FIRST = 5  # names reported for each reason
HIDDEN = "hidden"
UNKNOWN = "of an unknown type"
OUTSIDE = "a link out of the folder, which is not followed"
NOWHERE = "a link that leads nowhere"
SPECIAL = "neither file nor folder"
LOCKED = "not readable by this user"


@dataclasses.dataclass(frozen=True)
class LeftOut:
    """Counts of files or documents left out, by reason, with the first names.

    Attributes:
      reasons: reason → number and the first `FIRST` names, in the order of reading.
    """

    reasons: Mapping[str, tuple[int, tuple[str, ...]]] = dataclasses.field(default_factory=dict)

    @property
    def count(self) -> int:
        return sum(count for count, _ in self.reasons.values())

    def __bool__(self) -> bool:
        return bool(self.reasons)

    def __str__(self) -> str:
        """A half-sentence: `40 files (x.exe, y.exe, …): of an unknown type; 1 file (.a): hidden`."""
        return "; ".join(self.sentences)

    @property
    def sentences(self) -> list[str]:
        """A half-sentence for each reason, the most frequent first."""
        ordered = sorted(self.reasons.items(), key=lambda item: (-item[1][0], item[0]))
        return [
            f"{count:,} file{'s' * (count > 1)} ({', '.join(names)}{', …' if count > len(names) else ''}): {reason}"
            for reason, (count, names) in ordered
        ]

    def as_json(self) -> dict[str, Any]:
        """`{reason: {"files": n, "first": [name, …]}}`."""
        return {reason: {"files": n, "first": list(names)} for reason, (n, names) in sorted(self.reasons.items())}


def left_out_of(value: Mapping[str, Any]) -> LeftOut:
    """`LeftOut.as_json` read again."""
    return LeftOut({reason: (about["files"], tuple(about["first"])) for reason, about in value.items()})


def joined(parts: Iterable[LeftOut]) -> LeftOut:
    """The sum of several, the first names in their order."""
    counts: dict[str, int] = {}
    names: dict[str, list[str]] = {}
    for part in parts:
        for reason, (count, first) in part.reasons.items():
            counts[reason] = counts.get(reason, 0) + count
            names.setdefault(reason, []).extend(first)
    return LeftOut({reason: (count, tuple(names[reason][:FIRST])) for reason, count in counts.items()})


class Counter:
    """Counts what is left out."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._names: dict[str, list[str]] = {}

    def add(self, reason: str, name: str) -> None:
        self._counts[reason] = self._counts.get(reason, 0) + 1
        first = self._names.setdefault(reason, [])
        if len(first) < FIRST:
            first.append(name.encode("utf-8", "surrogateescape").decode("utf-8", "replace"))

    @property
    def result(self) -> LeftOut:
        return LeftOut({reason: (count, tuple(self._names[reason])) for reason, count in self._counts.items()})


def walk(
    folder: pathlib.Path, known: Callable[[str], bool], *, below: bool = True
) -> tuple[dict[pathlib.Path, int], LeftOut]:
    """The files of a folder and of those below it with their bytes, in the order of their names, and those left out.

    A link to a file in the folder is that file; linked folders are not entered, since their contents are
    either found by its own name or lies outside.

    Args:
      known: whether a file of this name can be read.
      below: also in folders below it.
    """
    if is_remote(folder):
        return _objects(folder, known, below)
    counter, found = Counter(), dict[pathlib.Path, int]()
    root = os.path.realpath(folder)

    def name_of(path: str) -> str:
        return os.path.relpath(path, folder).replace(os.sep, "/")

    for entry in _entries(str(folder), counter, name_of, below):
        reason = _refusal(entry, root, known)
        if reason is None:
            found[pathlib.Path(entry.path)] = entry.stat().st_size
        elif reason:
            counter.add(reason, name_of(entry.path))
    return found, counter.result


def folders(folder: pathlib.Path) -> list[pathlib.Path]:
    """The folders directly in a folder, except hidden ones, by name; links to folders too."""
    if is_remote(folder):
        inside = [folder / name for name, facts in cast(Any, folder).entries().items() if facts["type"] == "directory"]
    else:
        inside = [below for below in folder.iterdir() if below.is_dir()]
    return sorted(below for below in inside if not below.name.startswith("."))


def _objects(
    folder: pathlib.Path, known: Callable[[str], bool], below: bool
) -> tuple[dict[pathlib.Path, int], LeftOut]:
    """`walk` of a bucket's folder, by one listing; it is assumed that whoever may list it may read it."""
    given = cast(Any, folder)
    listed = given.objects() if below else given.entries()
    if not below:  # as on a disk, a hidden folder is reported
        listed = {name: facts for name, facts in listed.items() if facts["type"] == "file" or name[0] == "."}
    counter, found, hidden = Counter(), dict[pathlib.Path, int](), set[str]()
    for parts, facts in sorted(((name.split("/"), facts) for name, facts in listed.items()), key=lambda item: item[0]):
        unseen = next((at for at, part in enumerate(parts) if part.startswith(".")), None)
        if unseen is not None:
            hidden.add("/".join(parts[: unseen + 1]))
        elif known(parts[-1]):
            found[folder.joinpath(*parts)] = int(facts.get("size") or 0)
        else:
            counter.add(UNKNOWN, "/".join(parts))
    for name in sorted(hidden):
        counter.add(HIDDEN, name)
    return found, counter.result


def _entries(folder: str, counter: Counter, name_of: Callable[[str], str], below: bool) -> Iterator[os.DirEntry[str]]:
    """Everything below a folder except folders, depth first."""
    stack = [_listed(folder, counter, name_of)]
    while stack:
        entry = next(stack[-1], None)
        if entry is None:
            stack.pop()
        elif entry.is_dir(follow_symlinks=False) and not entry.name.startswith("."):
            if below:
                stack.append(_listed(entry.path, counter, name_of))
        else:
            yield entry


def _listed(folder: str, counter: Counter, name_of: Callable[[str], str]) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return iter(sorted(entries, key=lambda entry: entry.name))
    except PermissionError:
        counter.add(LOCKED, f"{name_of(folder)}/")
        return iter(())


def _refusal(entry: os.DirEntry[str], root: str, known: Callable[[str], bool]) -> str | None:
    """The reason why an entry is left out; None: it is not; empty: it is found under another name."""
    if entry.name.startswith("."):
        return HIDDEN
    if entry.is_symlink():
        real = os.path.realpath(entry.path)
        if not os.path.exists(real):
            return NOWHERE
        if os.path.commonpath([real, root]) != root:
            return OUTSIDE
        if os.path.isdir(real):
            return ""
    elif not stat.S_ISREG(entry.stat().st_mode):
        return SPECIAL
    if not known(entry.name):
        return UNKNOWN
    return None if os.access(entry.path, os.R_OK) else LOCKED
