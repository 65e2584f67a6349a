"""A folder of somebody's documents as sources: the grouping of files, and their languages.

The folder may be in a bucket: it is listed, and of its documents a sample is fetched where their language is asked.

* A sub-folder whose name is a language's (`ko`, `jpn`, `pt-BR`) is a source in that language; if it contains nothing
  but up to `MAX_PARTS` sub-folders, each of these is a source (`ko_law`, `ko_web`).
* A sub-folder of another name (`code`, `reports`) is a source in the language that most of a sample is in, by CLD2.
* Files next to them, or a flat folder, are one source per language of a sample; each document goes to one of them.
"""

import collections
import dataclasses
import functools
import glob
import gzip
import itertools
import logging
import pathlib
import re
import zlib
from collections.abc import Iterator, Mapping

from kanana_jax import languages
from kanana_jax.data.read import inventory, language, records
from kanana_jax.data.read.inventory import LeftOut, walk
from kanana_jax.data.read.origins import Origin, stamp_of
from kanana_jax.data.read.record import FORMS, Form, Record, form_of
from kanana_jax.errors import UserError
from kanana_jax.files import is_remote, stage_down
from kanana_jax.files import place as path_of

log = logging.getLogger("kanana")
# Files of a folder, each with its bytes; for packed records, about their unpacked size.
Sizes = Mapping[pathlib.Path, int]
MAX_PARTS = 12
# Documents by which a language is identified, and the least share of them that counts as one of a flat folder. Of a few
# large files more are read: of ten documents, one full of code that CLD2 takes for Polish would make a Polish source.
_FILES, _PER_FILE, _DOCUMENTS, _LEAST = 40, 5, 100, 0.1
_PACKED, _SAMPLE = (".jsonl.gz", ".jsonl.zst"), 4 << 20  # endings, and bytes by which their ratio is known
_LONG = 4 << 20  # bytes of a document that is not worth reading for it
_CHARACTERS = 5000
_OTHERWISE = "en"


@dataclasses.dataclass(frozen=True)
class Group:
    """A source.

    Attributes:
      path, lang, among: as in `SourceConfig`.
      files, bytes: number and size of files; packed records count with their estimated unpacked size.
      listed: the files; of a flat folder with several languages, those of all.
    """

    path: str
    lang: str
    files: int
    bytes: int
    among: tuple[str, ...] = ()
    listed: Sizes = dataclasses.field(default_factory=dict, repr=False, compare=False)


def groups(place: str | pathlib.Path) -> dict[str, Group]:
    """The sources of a folder or file, at a bucket's address too, by name; logs decisions and files left out.

    Raises:
      UserError: there is nothing to read, or CLD2 is needed but not installed.
    """
    root = path_of(place).expanduser()
    is_file = root.is_file()
    if not is_file and not root.is_dir():
        raise UserError(f"{place} does not exist: name a folder of documents, or one file")
    notes: list[str] = []
    found: dict[str, Group] = {}
    for folder in [] if is_file else inventory.folders(root):
        for name, group in _of_folder(folder, root, notes):
            found[_unused(name, found)] = group
    loose, left_out = _loose(root, is_file)
    if loose:
        path, prefix = (str(path_of(glob.escape(str(root))) / "*"), "files_") if found else (str(root), "")
        for lang, group in _of_files(path, loose, notes):
            found[_unused(prefix + lang, found)] = group
    elif left_out:
        notes.append(f"{root}: left out are {left_out}")
    if not found:
        nothing = "; ".join(notes) or "it is empty"
        raise UserError(f"{place} has no documents to read: {nothing}; known are {records.endings()}")
    if not any(group.bytes for group in found.values()):
        raise UserError(f"the files in {place} are empty: if they come from a filter, it kept no document")
    for note in notes:
        log.info("%s", note)
    return found


def forms(group: Group) -> dict[Form, int]:
    """The forms of a source's records, with their bytes, estimated from the first records of its files.

    Nothing is fetched from a bucket: files there count as texts.
    """
    shares: collections.Counter[Form] = collections.Counter()
    held = {f: n for f, n in group.listed.items() if not records.is_document(_origin(f, n), "")}
    shares["text"] = sum(group.listed.values()) - sum(held.values())
    for file, size in held.items():
        found = [] if is_remote(file) else [form_of(record) for record in _first(file, _PER_FILE)]
        for form in found or [FORMS[0]]:
            shares[form] += size // max(len(found), 1)
    return {form: size for form, size in shares.items() if size}


def _loose(root: pathlib.Path, is_file: bool) -> tuple[Sizes, LeftOut]:
    if is_file:
        return _unpacked({root: root.stat().st_size}), LeftOut()
    files, left_out = walk(root, records.is_known, below=False)
    return _unpacked(files), left_out


def _unpacked(files: Sizes) -> Sizes:
    """The sizes, those of packed records times the ratio at the beginning of the largest file that is here."""
    packed = {file: size for file, size in files.items() if file.name.endswith(_PACKED)}
    here = [file for file in packed if not is_remote(file)]
    ratio = _ratio(max(here, key=lambda file: packed[file])) if here else 1.0
    return {file: round(size * ratio) if file in packed else size for file, size in files.items()}


def _ratio(file: pathlib.Path) -> float:
    """Bytes of a packed file's beginning, over those that they take in the file; 1 if it cannot be read.

    What is wrong with it the conversion reports.
    """
    import pyarrow

    unpack = gzip.open if file.suffix == ".gz" else functools.partial(pyarrow.input_stream, compression="zstd")
    try:
        with file.open("rb") as raw, unpack(raw) as stream:
            read = len(stream.read(_SAMPLE))
            return read / max(raw.tell(), 1)
    except (EOFError, OSError, zlib.error):
        return 1.0


def _of_folder(folder: pathlib.Path, root: pathlib.Path, notes: list[str]) -> Iterator[tuple[str, Group]]:
    name = folder.relative_to(root).as_posix()
    if folder.is_symlink():
        notes.append(f"{name}/ is a link, which is not followed: name its folder instead")
        return
    found, left_out = walk(folder, records.is_known)
    files = _unpacked(found)
    if not files:
        notes.append(f"{name}/ has no documents: {f'left out are {left_out}' if left_out else 'it is empty'}")
        return
    if not languages.is_known(folder.name):
        lang, why = _majority(files)
        notes.append(f"{name}/ is not a language code; its documents are taken as '{lang}' ({why})")
        yield _named(name), _group(folder, lang, files)
        return
    lang = languages.tag(folder.name)
    parts = inventory.folders(folder)
    inside = {part: {f: size for f, size in files.items() if f.is_relative_to(part)} for part in parts}
    if 1 < len(parts) <= MAX_PARTS and all(inside.values()) and sum(map(len, inside.values())) == len(files):
        for part in parts:
            yield f"{_named(name)}_{_named(part.name)}", _group(part, lang, inside[part])
    else:
        yield _named(name), _group(folder, lang, files)


def _of_files(path: str, files: Sizes, notes: list[str]) -> Iterator[tuple[str, Group]]:
    counts = _languages(files)
    read = sum(counts.values())
    among = tuple(lang for lang, n in counts.most_common() if lang and n >= _LEAST * read) or (_OTHERWISE,)
    size = sum(files.values())
    total = sum(counts[lang] for lang in among) or 1
    shares = ", ".join(f"{lang} {counts[lang]}" for lang in among)
    some = f"{len(files):,} file{'s' * (len(files) != 1)}"
    notes.append(f"{some} without a folder of a language: of {read} sampled documents CLD2 says {shares}")
    for lang in among:
        share = counts[lang] / total if len(among) > 1 else 1.0
        yield (
            lang,
            Group(path, lang, round(len(files) * share), round(size * share), among if len(among) > 1 else (), files),
        )


def _group(folder: pathlib.Path, lang: str, files: Sizes) -> Group:
    return Group(str(folder), lang, len(files), sum(files.values()), listed=files)


def _majority(files: Sizes) -> tuple[str, str]:
    """The language of most of a sample, and the reason for the choice."""
    try:
        counts = _languages(files)
    except UserError:
        return _OTHERWISE, "CLD2, which identifies languages, is not installed"
    lang, count = next(((lang, n) for lang, n in counts.most_common() if lang), ("", 0))
    if not lang:
        return _OTHERWISE, "CLD2 finds no language in a sample"
    return lang, f"{count} of {sum(counts.values())} sampled documents, by CLD2"


def _languages(files: Sizes) -> collections.Counter[str]:
    """Documents of a sample by language; those in none that is known under ''.

    Raises:
      UserError: CLD2 is not installed.
    """
    language.detect("")
    counts: collections.Counter[str] = collections.Counter()
    step = max(len(files) / _FILES, 1.0)
    ordered = list(files.items())
    chosen = [ordered[int(at * step)] for at in range(min(len(files), _FILES))]
    for file, size in chosen:
        for text in _texts(file, size, max(_PER_FILE, _DOCUMENTS // len(chosen))):
            shares = language.detect(text[:_CHARACTERS])
            counts[next(iter(shares), "")] += 1
    return counts


def _texts(file: pathlib.Path, size: int, most: int) -> list[str]:
    """The first texts of a file; empty if it cannot be read, which the conversion reports."""
    if size > _LONG and records.is_document(_origin(file, size), ""):
        return []
    return [item["text"] for item in _first(stage_down(file), most)]


def _first(local: pathlib.Path, most: int) -> list[Record]:
    origin = Origin(str(local), str(local), stamp=stamp_of(local))
    try:
        items = itertools.islice(records.documents_of(origin, source=""), most)
        return [item for item in items if isinstance(item, dict)]
    except UserError:
        return []


def _origin(file: pathlib.Path, size: int) -> Origin:
    return Origin(str(file), str(file), stamp=f"{size}:0")


def _named(name: str) -> str:
    """A name made fit for a config key."""
    return re.sub(r"\W+", "_", name).strip("_") or "folder"


def _unused(name: str, used: dict[str, Group]) -> str:
    return next(n for n in itertools.chain([name], (f"{name}_{i}" for i in itertools.count(2))) if n not in used)
