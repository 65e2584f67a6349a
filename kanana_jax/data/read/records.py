"""Readers of records in every supported form; they stream, and a line that is not a document is a `Broken`."""

import dataclasses
import glob
import gzip
import importlib.util
import io
import logging
import os
import pathlib
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from kanana_jax.data.extract.files import CRAWLS, DUMPS, SUFFIXES, read_unit, units
from kanana_jax.data.read import jsonl, outputs, parquet, plain_text
from kanana_jax.data.read.inventory import UNKNOWN, Counter, LeftOut, walk
from kanana_jax.data.read.origins import Origin, is_unchanged, stamp_of
from kanana_jax.data.read.record import PLACE, Broken, Fields, Line, Record
from kanana_jax.errors import UserError, install
from kanana_jax.files import STORES, place, stage_down

log = logging.getLogger("kanana")
ADDRESSES = ("microworld://", "hf://", "seqio://")
_Item = TypeVar("_Item", bound="Line | Record | Broken")


def read(
    path: str, *, text_field: str = "text", source: str, lang: str | None = None, format: str = ""
) -> Iterator[Record | Broken]:
    """All documents of a file, folder, glob, or `hf://`, `seqio://` or `microworld://` address, in a fixed order.

    Files of records (`.jsonl`, `.parquet` …) come first, then raw documents (HTML, LaTeX, wikitext, Markdown …), whose
    text is extracted; `format` names their format if file names do not reveal it (`extract.FORMATS`).

    A document without an `id` is named by its file, from the folder that the path names, and its line.

    Raises:
      UserError: nothing found, an unknown form, or a missing library.
    """
    for item in read_lines(path, text_field=text_field, source=source, lang=lang, format=format):
        yield item.parse() if isinstance(item, Line) else item


def read_lines(
    path: str, *, text_field: str = "text", source: str, lang: str | None = None, format: str = ""
) -> Iterator[Line | Record | Broken]:
    """Like `read`, but lines of JSON are returned unparsed."""
    for origin in find(path, format):
        yield from lines_of(origin, text_field=text_field, source=source, lang=lang, format=format)


def find(path: str, format: str = "") -> list[Origin]:
    """The files that `read` reads in order, each once even if several names reach it; logs the files left out.

    Raises:
      UserError: nothing found, an unknown form, or documents that an earlier job dropped.
    """
    found, left_out = survey(path, format)
    if left_out:
        log.warning("%s: left out are %s", path, left_out)
    return found


def survey(path: str, format: str = "") -> tuple[list[Origin], LeftOut]:
    """Like `find`, with the files that are left out.

    Raises:
      UserError: as for `find`.
    """
    if path.startswith(ADDRESSES):
        return [Origin(path, path)], LeftOut()
    path = _staged(path)
    files, left_out = _files(path, format)
    outputs.refuse_results(path, files)
    tables = [] if format else [file for file in files if _suffix(file) in _READERS]
    rest = []
    if len(tables) < len(files):
        folder, known = pathlib.Path(path).expanduser(), set(tables)
        rest = units(folder, format or None, files) if folder.is_dir() else files
        rest = [unit for unit in rest if unit not in known]
    root, found = f"{root_of(path)}/", {}
    for file in (*tables, *rest):
        found.setdefault(os.path.realpath(file), file)
    return [Origin(real, str(file), root, stamp_of(file)) for real, file in found.items()], left_out


def _staged(path: str) -> str:
    """A local path or glob for one in a bucket, whose objects are downloaded (`files.stage_down`).

    Raises:
      UserError: nothing found.
    """
    if not in_bucket(path):
        return path
    head, pattern = _parts(path)
    try:
        return str(stage_down(head, _matches(pattern)) / pattern if pattern else stage_down(head))
    except FileNotFoundError as error:
        raise UserError(f"source '{path}' has no documents: there is nothing at this address") from error


def _parts(path: str) -> tuple[pathlib.Path, str]:
    """The fixed folder of a glob in a bucket, and the pattern from there; otherwise the path itself and ''."""
    given = head = place(path)
    if not glob.has_magic(path) or given.exists():
        return given, ""
    while glob.has_magic(str(head)):
        head = head.parent
    return head, str(given.relative_to(head))


def _matches(pattern: str) -> Callable[[str], object]:
    from fsspec.utils import glob_translate

    return re.compile(glob_translate(pattern)).match


def listed(path: str, format: str = "") -> list[int]:
    """The bytes of each object that a source in a bucket would read, from the bucket's listing; none is fetched."""
    head, pattern = _parts(path)

    def known(name: str) -> bool:
        return bool(format) or is_known(name)

    if not pattern and head.is_file():
        return [head.stat().st_size]
    matches, found = _matches(pattern) if pattern else bool, walk(head, known)[0]
    return [size for file, size in found.items() if matches(str(file.relative_to(head)))]


def in_bucket(path: str) -> bool:
    """Returns whether a source is in a bucket."""
    return path.startswith(tuple(f"{scheme}:/" for scheme in STORES))


def check_address(path: str) -> None:
    """Refuses an address that cannot be read from here, without fetching anything.

    Raises:
      UserError: a library that is not installed, or an unknown microworld.
    """
    if path.startswith("microworld://"):
        from kanana_jax.data.microworld import parse_uri

        parse_uri(path)
    elif path.startswith("hf://") and importlib.util.find_spec("datasets") is None:
        raise _needs_datasets(path)
    elif path.startswith("seqio://") and importlib.util.find_spec("seqio") is None:
        raise _needs_seqio(path)


def _needs_datasets(path: str) -> UserError:
    return UserError(f"source '{path}' needs the datasets library: {install('hub')}")


def _needs_seqio(path: str) -> UserError:
    return UserError(f"source '{path}' needs seqio and tensorflow-text: {install('seqio')}")


def find_all(paths: Iterable[str]) -> list[Origin]:
    """`find` of several paths, in their order; a file reached by several is read where it comes first."""
    found: dict[str, Origin] = {}
    for path in paths:
        for origin in find(path):
            found.setdefault(origin.path, origin)
    return list(found.values())


def lines_of(
    origin: Origin, *, text_field: str = "text", source: str, lang: str | None = None, format: str = ""
) -> Iterator[Line | Record | Broken]:
    """The documents of one origin; with their places if the origin is identified.

    Raises:
      UserError: the origin changed since it was identified.
    """
    place = (origin.digest, origin.path) if origin.digest else None
    if origin.path.startswith("microworld://"):
        from kanana_jax.data.microworld import parse_uri

        for number, record in enumerate(parse_uri(origin.path)):
            yield {**record, "source": source} | ({PLACE: [*place, number]} if place else {})
        return
    fields = Fields(text_field, source, lang, origin.root, place)
    for number, (where, raw) in enumerate(_raws(origin, format)):
        if isinstance(raw, Broken):
            yield raw
        else:
            yield Line(where, raw, fields, number) if isinstance(raw, bytes) else fields.record(where, raw, number)
    if origin.digest and not is_unchanged(origin):
        raise UserError(f"{origin.name} changed while it was read: run the command again when nothing writes to it")


def documents_of(
    origin: Origin, *, text_field: str = "text", source: str, lang: str | None = None, format: str = ""
) -> Iterator[Record | Broken]:
    """Like `lines_of`, parsed."""
    for item in lines_of(origin, text_field=text_field, source=source, lang=lang, format=format):
        yield item.parse() if isinstance(item, Line) else item


def _raws(origin: Origin, format: str) -> Iterator[tuple[str, Any]]:
    if origin.path.startswith("hf://"):
        return _hugging_face(origin.path)
    if origin.path.startswith("seqio://"):
        return _seqio(origin.path)
    file = pathlib.Path(origin.name)
    if not format and not file.is_dir() and (reader := _READERS.get(_suffix(file))):
        return reader(file)
    return read_unit(file, format or None)


def files_of(path: str, format: str = "") -> list[pathlib.Path]:
    """The readable files of a path, folder or glob, sorted.

    Args:
      format: takes files of any name.

    Raises:
      UserError: there is none.
    """
    return _files(path, format)[0]


def _files(path: str, format: str) -> tuple[list[pathlib.Path], LeftOut]:
    def known(name: str) -> bool:
        return bool(format) or is_known(name)

    expanded, nothing = pathlib.Path(path).expanduser(), "there is no such file or folder"
    left_out = LeftOut()
    if expanded.is_dir():
        files, left_out = walk(expanded, known)
        found, nothing = list(files), "the folder is empty"
    elif expanded.is_file():
        if not known(expanded.name):
            raise UserError(
                f"{expanded}: documents cannot be read from '{expanded.suffix}' files; known are {endings()}, "
                "and for others, name their format in 'format'"
            )
        found = [expanded]
    else:
        counter, found = Counter(), []
        for file in map(pathlib.Path, sorted(glob.glob(str(expanded), recursive=True))):
            if file.is_file():
                if known(file.name):
                    found.append(file)
                else:
                    counter.add(UNKNOWN, file.name)
        left_out = counter.result
        if glob.has_magic(str(expanded)):
            nothing = "no file matches"
    if not found:
        raise UserError(
            f"source '{path}' has no documents: {f'left out are {left_out}' if left_out else nothing}; give a file, a "
            f"folder or a glob of {endings()} files"
        )
    return found, left_out


def is_known(name: str) -> bool:
    """Returns whether documents can be read from a file with this name."""
    return name.lower().endswith(_KNOWN)


def endings() -> str:
    """The readable file endings, for messages."""
    return ", ".join(_KNOWN)


def is_document(origin: Origin, format: str) -> bool:
    """Returns whether an origin is a single document (or project), not a container of many."""
    if origin.is_address:
        return False
    if format or os.path.isdir(origin.name):
        return True
    suffix = _suffix(pathlib.Path(origin.name))
    return suffix == ".txt" or not (suffix in _READERS or origin.name.lower().endswith((*CRAWLS, *DUMPS)))


def root_of(path: str) -> pathlib.Path:
    """The folder that all files of a path share: ids from there on are the same wherever the folder lies."""
    expanded = pathlib.Path(path).expanduser()
    if expanded.is_dir():
        return expanded
    while glob.has_magic(str(expanded.parent)):
        expanded = expanded.parent
    return expanded.parent


def _suffix(file: pathlib.Path) -> str:
    name = file.name.lower()
    return next((suffix for suffix in _BY_LENGTH if name.endswith(suffix)), file.suffix.lower())


def _lines(stream: jsonl.Stream, file: pathlib.Path) -> Iterator[tuple[str, Any]]:
    try:
        for number, line in enumerate(jsonl.lines(stream), 1):
            where = f"{file}:{number}"
            if line is None:
                yield where, Broken(where, f"line has more than {jsonl.MAX_LINE} bytes")
            elif line.strip():
                yield where, line
    except (EOFError, OSError, zlib.error, ValueError) as error:
        raise UserError(f"{file} is truncated or does not match its name ({error}): fetch it again") from error


def _jsonl(file: pathlib.Path):
    with file.open("rb") as stream:
        yield from _lines(stream, file)


def _jsonl_gz(file: pathlib.Path):
    with gzip.open(file, "rb") as stream:
        yield from _lines(stream, file)


def _jsonl_zst(file: pathlib.Path):
    import pyarrow

    # Arrow's stream says when a file ends in the middle of a frame; zstandard's reader just stops.
    with io.BufferedReader(pyarrow.input_stream(str(file), compression="zstd")) as stream:
        yield from _lines(stream, file)


def _array_record(file: pathlib.Path):
    import grain

    try:
        source = grain.sources.ArrayRecordDataSource([str(file)])
        for row in range(len(source)):
            where, data = f"{file}:{row + 1}", source[row]
            yield where, data if len(data) <= jsonl.MAX_LINE else Broken(where, f"record has {len(data)} bytes")
    except (RuntimeError, ValueError, IndexError, OSError) as error:
        raise UserError(f"{file} is truncated or not an ArrayRecord file ({error}): fetch it again") from error


def _seqio(uri: str) -> Iterator[tuple[str, Any]]:
    try:
        from kanana_jax.data.read import seqio_source
    except ImportError as error:
        raise _needs_seqio(uri) from error
    yield from seqio_source.read(uri)


def _hugging_face(uri: str) -> Iterator[tuple[str, Any]]:
    try:
        import datasets
    except ImportError as error:
        raise _needs_datasets(uri) from error
    name, _, split = uri.removeprefix("hf://").partition(":")
    parts = name.split("/")
    try:
        rows = datasets.load_dataset("/".join(parts[:2]), *parts[2:3], split=split or "train", streaming=True)
        for number, row in enumerate(rows, 1):
            yield f"{uri}#{number}", row
    except (OSError, ValueError, ConnectionError) as error:
        raise UserError(f"source '{uri}' cannot be loaded ({str(error).splitlines()[0][:150]})") from error


_READERS: dict[str, Callable[[pathlib.Path], Iterator[tuple[str, Any]]]] = {
    ".jsonl": _jsonl,
    ".jsonl.gz": _jsonl_gz,
    ".jsonl.zst": _jsonl_zst,
    ".parquet": parquet.rows,
    ".array_record": _array_record,
    ".txt": plain_text.documents,
}


_BY_LENGTH = sorted(_READERS, key=len, reverse=True)
_KNOWN = tuple(sorted({*_READERS, *SUFFIXES}))


def batches(items: Iterable[_Item], count: int) -> Iterator[list[_Item]]:
    """Items in lists of at most `count`, and of fewer if these exceed `jsonl.MAX_LINE` bytes."""
    held: list[_Item] = []
    size = 0
    for item in items:
        held.append(item)
        size += len(item.data) if isinstance(item, Line) else len(item["text"]) if isinstance(item, dict) else 0
        if len(held) == count or size > jsonl.MAX_LINE:
            yield held
            held, size = [], 0
    if held:
        yield held


@dataclasses.dataclass(frozen=True)
class Texts:
    """The texts at a path, iterable any number of times; broken lines are skipped."""

    path: str

    def __iter__(self) -> Iterator[str]:
        return (item["text"] for item in read(self.path, source="") if not isinstance(item, Broken))
