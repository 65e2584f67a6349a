"""Raw files, archives, web crawls and wiki dumps as streams of records with their text extracted."""

import bz2
import gzip
import io
import pathlib
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

from kanana_jax.data.extract import FORMATS, MAX_BYTES, extract, format_of
from kanana_jax.data.extract.markup import Broken, Extracted, Report
from kanana_jax.errors import UserError

# File name endings that `read_files` accepts: those of every format, and of containers of many documents.
CRAWLS = (".warc.gz", ".warc", ".warc.zst", ".warc.wet.gz", ".warc.wet")
DUMPS = (".xml", ".xml.gz", ".xml.bz2")
SUFFIXES = tuple(sorted({*(end for ends in FORMATS.values() for end in ends), *CRAWLS, *DUMPS}))
_TEX = (".tex", ".ltx")
_SOURCES = (*_TEX, ".sty", ".bbl", ".cls")


def read_files(path: str | pathlib.Path, format: str | None = None) -> Iterator[tuple[str, dict[str, Any] | Broken]]:
    """Yields the documents of a file, or of all files below a folder, in the order of their names.

    LaTeX files in the folder, or else in each folder below it, form one project; files that others include are not
    documents of their own.

    Args:
      format: a key of `extract.FORMATS`, for files whose names do not determine it (`aozora`, `text`).

    Yields:
      The place of a document, and `{"text", "meta": {"format", "title"?, "extraction"?}, "url"?}` or the reason why it
      could not be read.

    Raises:
      UserError: a file cannot be opened, or a library is missing.
    """
    for unit in units(path, format):
        yield from read_unit(unit, format)


def units(
    path: str | pathlib.Path, format: str | None = None, files: Sequence[pathlib.Path] | None = None
) -> list[pathlib.Path]:
    """The units that `read_files` reads: files, and folders that are LaTeX projects.

    Args:
      files: the folder's files, if already listed.
    """
    path = pathlib.Path(path)
    if path.is_file():
        return [path]
    if files is None:
        files = [f for f in sorted(path.rglob("*")) if f.is_file() and (format or _known(f))]
    is_project = any(f.parent == path and f.suffix.lower() in _TEX for f in files)
    found: dict[pathlib.Path, None] = {}
    for file in files:
        in_project = format is None and file.suffix.lower() in _TEX
        found[(path if is_project else path / file.relative_to(path).parts[0]) if in_project else file] = None
    return list(found)


def read_unit(unit: pathlib.Path, format: str | None = None) -> Iterator[tuple[str, dict[str, Any] | Broken]]:
    """Yields the documents of one of `units`."""
    yield from _project(unit) if unit.is_dir() else _file(unit, format)


def project_files(folder: pathlib.Path) -> list[pathlib.Path]:
    """The files of a LaTeX project that contribute to its text."""
    return [f for f in sorted(folder.rglob("*")) if f.is_file() and f.name.lower().endswith(_SOURCES)]


def _known(file: pathlib.Path) -> bool:
    return file.name.lower().endswith(SUFFIXES)


def _file(file: pathlib.Path, format: str | None) -> Iterator[tuple[str, dict[str, Any] | Broken]]:
    lower = file.name.lower()
    try:
        if format is None and lower.endswith(CRAWLS):
            yield from _crawl(file)
        elif format is None and lower.endswith(DUMPS):
            yield from _dump(file)
        else:
            kind = format or format_of(file.name)
            if kind is None:
                raise UserError(f"{file}: no known form of text; known are {', '.join(SUFFIXES)}")
            yield str(file), _document(str(file), file, kind)
    except OSError as error:
        raise UserError(f"{file} cannot be read ({error}): fetch it again") from error


def _document(where: str, file: pathlib.Path, format: str) -> dict[str, Any] | Broken:
    if file.stat().st_size > MAX_BYTES:
        return Broken(where, f"document has more than {MAX_BYTES} bytes")
    try:
        return _record(extract(file.read_bytes(), format, file.stem if format == "wikitext" else file.name), format)
    except ValueError as error:
        return Broken(where, str(error))


def _record(extracted: Extracted, format: str, **fields: Any) -> dict[str, Any]:
    meta: dict[str, Any] = {"format": format}
    if extracted.title:
        meta["title"] = extracted.title
    if extracted.report:
        meta["extraction"] = extracted.report
    return {"text": extracted.text, "meta": meta, **fields}


def _project(folder: pathlib.Path) -> Iterator[tuple[str, dict[str, Any] | Broken]]:
    """Yields each LaTeX document of a folder, i.e. each source that no other includes."""
    from kanana_jax.data.extract import latex

    files, size = {}, 0
    for file in project_files(folder):
        size += file.stat().st_size
        if size > MAX_BYTES:
            yield str(folder), Broken(str(folder), f"LaTeX project has more than {MAX_BYTES} bytes")
            return
        files[file.relative_to(folder).as_posix()] = file.read_bytes()
    for main in latex.documents(files):
        where = str(folder / main)
        try:
            yield where, _record(latex.project(files, Report(), main), "latex")
        except ValueError as error:
            yield where, Broken(where, str(error))


def _crawl(file: pathlib.Path) -> Iterator[tuple[str, dict[str, Any] | Broken]]:
    """The pages of a WARC file."""
    from kanana_jax.data.extract import crawl

    for where, page in crawl.pages(file):
        if isinstance(page, Broken):
            yield where, page
        else:
            yield where, _record(page.extracted, page.format, **({"url": page.url} if page.url else {}))


class _Counted:
    """A stream that raises ValueError after more than `limit` bytes, unless `since` is reset in time."""

    def __init__(self, stream: io.BufferedIOBase, limit: int):
        self._stream, self._limit, self.since = stream, limit, 0

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self.since += len(data)
        if self.since > self._limit:
            raise ValueError(f"a page has more than {self._limit} bytes")
        return data


def _dump(file: pathlib.Path) -> Iterator[tuple[str, dict[str, Any] | Broken]]:
    """The articles of a MediaWiki export."""
    from xml.etree import ElementTree

    from kanana_jax.data.extract import wikitext

    opener = {".gz": gzip.open, ".bz2": bz2.open}.get(file.suffix.lower(), open)
    page: dict[str, str] = {}
    with opener(file, "rb") as stream:
        root, counted = None, _Counted(stream, 2 * MAX_BYTES)
        try:
            for event, element in ElementTree.iterparse(counted, events=("start", "end")):
                root = element if root is None else root
                tag = element.tag.rpartition("}")[2]
                if event == "start":
                    continue
                if tag in ("title", "ns", "text") or (tag == "id" and "id" not in page):
                    page[tag] = element.text or ""
                elif tag == "page":
                    where = f"{file}#{page.get('id', '')}"
                    if page.get("ns", "0") == "0":
                        result = wikitext.convert(page.get("text", "").encode("utf-8"), page.get("title", ""))
                        if "redirect" not in result.report:
                            yield where, _record(result, "wikitext")
                    page = {}
                    root.clear()  # otherwise the whole tree stays in memory
                    counted.since = 0
        except (ElementTree.ParseError, EOFError, zlib.error, ValueError) as error:
            raise UserError(f"{file} is truncated or not a MediaWiki export ({error}): fetch it again") from error
