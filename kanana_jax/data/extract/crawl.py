"""Web crawls: the successfully served pages of a WARC file, and the reasons why other records are skipped.

HTTP headers are parsed here rather than by the library, which gives up on the whole crawl at one odd page. Real crawls
contain headers without a status line, `HTTP/2 200`, interim responses, and bodies that are already decoded.
"""

import dataclasses
import pathlib
import re
import zlib
from collections.abc import Iterator, Mapping

import pyarrow

from kanana_jax.data.extract import MAX_BYTES, html, plain
from kanana_jax.data.extract.markup import Broken, Extracted, Skipped
from kanana_jax.errors import UserError

_CHUNK = re.compile(rb"[ \t]{0,9}([0-9A-Fa-f]{1,8})[ \t]{0,9}(?:;[^\r\n]{0,200})?\r?\n")
_STATUS = re.compile(rb"[A-Za-z]{2,8}(?:/[\d.]{1,8})?[ \t]{1,9}(\d{3})(?![^ \t\r\n])[^\n]{0,2000}\n")
_STATUS_LINE = re.compile(rb"(?:HTTP|ICY)\b[^\n]{0,2000}\n", re.IGNORECASE)
_FIELD = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,200}[ \t]{0,9}:|[ \t]+[^\s]")
_CHARSET = re.compile(r"charset\s{0,9}=\s{0,9}[\"']?\s{0,9}([\w.:-]{2,40})", re.IGNORECASE)
_MARKUP = re.compile(rb"(?:\xef\xbb\xbf)?\s{0,200}<(?:!doctype[ \t\r\n]{1,9}html|html|head|body)[\s>]", re.IGNORECASE)
_RANGE = re.compile(r"bytes[ \t]{1,9}0-(\d{1,15})/(\d{1,15})")
_KINDS = ("response", "resource", "revisit", "conversion")
_MAX_HEAD = 64 << 10
# 203: a page that a proxy has changed. 206 (partial content) is checked apart: a page only if all of it was sent.
_WHOLE = (200, 203)


@dataclasses.dataclass(frozen=True)
class Page:
    """A document of a crawl: its address (may be empty), its format (a key of `extract.FORMATS`) and its text."""

    url: str
    format: str
    extracted: Extracted


@dataclasses.dataclass(frozen=True)
class Head:
    """The header of a response.

    Attributes:
      status: None if there is no status line.
      fields: lower-case name → value; repeated fields are joined by commas.
      length: length of the header in bytes.
    """

    status: int | None
    fields: Mapping[str, str]
    length: int


def pages(file: pathlib.Path) -> Iterator[tuple[str, Page | Broken]]:
    """Yields the pages of a WARC file, or the texts of a WET file, each with its place.

    Pages are responses and resources in HTML; texts are conversions to plain text. Requests and records about the crawl
    itself are ignored; errors, redirects, revisits and other media types are yielded as `Skipped`.

    Raises:
      UserError: the library is not installed.
    """
    try:
        from fastwarc.warc import ArchiveIterator
    except ImportError as error:
        raise UserError("reading WARC needs the fastwarc library: pip install fastwarc") from error
    number, seen = 0, set()
    with file.open("rb") as stream:
        for entry in ArchiveIterator(stream, parse_http=False, auto_decode="none"):
            record = {name.lower(): value for name, value in entry.headers.items()}
            kind = record.get("warc-type", "").strip().lower()
            if kind not in _KINDS:
                continue
            start = entry.reader.read(min(entry.content_length, _MAX_HEAD))
            head = _head(start, record.get("content-type", ""), kind)
            number += _is_text(kind, head, record, start)
            where = f"{file}:{number}"
            reason = _no_page(kind, head, record, start)
            if kind == "conversion" and record.get("warc-refers-to") in seen:
                reason = "converted from a page that was read"
            if reason:
                yield where, Skipped(where, reason)
                continue
            data = start + entry.reader.read(max(0, MAX_BYTES + 1 + head.length - len(start)))
            try:
                if len(data) < min(entry.content_length, MAX_BYTES):
                    raise ValueError("page is truncated")
                page = _page(kind, head, record, data[head.length :])
            except ValueError as error:
                yield where, Broken(where, str(error))
                continue
            if kind != "conversion":
                seen.add(record.get("warc-record-id"))
            yield where, page


def _page(kind: str, head: Head, record: Mapping[str, str], data: bytes) -> Page:
    data, is_cut = body(data, head.fields)
    charset = _CHARSET.search(head.fields.get("content-type", ""))
    if kind == "conversion":
        extracted = plain.convert(data)
    else:
        extracted = html.convert(data, declared=charset[1] if charset else None)
    if is_cut or "warc-truncated" in record:
        extracted = dataclasses.replace(extracted, report={**extracted.report, "truncated": 1})
    return Page(record.get("warc-target-uri", "").strip("<>"), "text" if kind == "conversion" else "html", extracted)


def _head(data: bytes, kind_of_block: str, kind: str) -> Head:
    """The header of a record's block; if the block is not an HTTP message, the record's own header."""
    if kind in ("resource", "conversion") and "application/http" not in kind_of_block.lower():
        return Head(None, {"content-type": kind_of_block}, 0)
    at, status = 0, None
    for _ in range(10):  # skip interim responses
        found = _STATUS.match(data, at) or _STATUS_LINE.match(data, at)
        if found is None and (_MARKUP.match(data, at) or not _FIELD.match(data, at)):
            return Head(status, {}, at)
        status = int(found[1]) if found is not None and found.lastindex else None
        at = found.end() if found is not None else at
        fields, at = _fields(data, at)
        if status is None or not 100 <= status < 200:
            break
    return Head(status, fields, at)


def _fields(data: bytes, at: int) -> tuple[dict[str, str], int]:
    """Parses header fields from `at` on; also returns where the body begins."""
    fields: dict[str, str] = {}
    name = ""
    while at < len(data):
        end = data.find(b"\n", at)
        end = len(data) if end < 0 else end
        line = data[at:end].rstrip(b"\r")
        at = end + 1
        if not line.strip():
            break
        text = line.decode("latin-1")
        if text[0] in " \t":  # continuation of the previous value
            fields[name] = f"{fields.get(name, '')} {text.strip()}".strip()
            continue
        name, _, value = text.partition(":")
        name, value = name.strip().lower(), value.strip()
        fields[name] = f"{fields[name]}, {value}" if name in fields else value
    return fields, min(at, len(data))


def _is_text(kind: str, head: Head, record: Mapping[str, str], start: bytes) -> bool:
    declared = head.fields.get("content-type") or record.get("warc-identified-payload-type", "")
    if declared:
        return "html" in declared.lower() or (kind == "conversion" and "text/plain" in declared.lower())
    return _MARKUP.match(start, head.length) is not None


def _no_page(kind: str, head: Head, record: Mapping[str, str], start: bytes) -> str:
    """The reason why a record is not a document; "" if it is one."""
    if kind == "revisit":  # the text is in the record of the first visit
        return "revisit"
    if not start:
        return "empty"
    if not _is_text(kind, head, record, start):
        return "not HTML"
    if head.status == 206:
        sent = _RANGE.match(head.fields.get("content-range", ""))
        return "" if sent is not None and int(sent[1]) + 1 == int(sent[2]) else "status 206"
    return "" if head.status is None or head.status in _WHOLE else f"status {head.status}"


def body(data: bytes, fields: Mapping[str, str]) -> tuple[bytes, bool]:
    """Decodes the transfer and content codings of a body; also returns whether its end is missing.

    Many crawls store decoded bodies but keep the header fields that name the codings.

    Raises:
      ValueError: the body is broken or has more than `MAX_BYTES`.
    """
    transfer, coding = fields.get("transfer-encoding", "").lower(), fields.get("content-encoding", "").lower()
    is_cut = False
    if "chunked" in transfer and _CHUNK.match(data):
        data, is_cut = _unchunked(data)
    elif not transfer and not coding and fields.get("content-length", "").isdecimal():
        is_cut = len(data) < int(fields["content-length"][:15])
    names = [name.strip() for name in f"{coding},{transfer}".split(",")]
    for name in reversed(names[:10]):  # codings are listed in the order of their application
        data, ends_early = _decoded(data, name.removeprefix("x-"))
        is_cut = is_cut or ends_early
    if len(data) > MAX_BYTES:
        raise ValueError(f"page has more than {MAX_BYTES} bytes")
    return data, is_cut


def _unchunked(data: bytes) -> tuple[bytes, bool]:
    chunks, at = [], 0
    while (chunk := _CHUNK.match(data, at)) is not None:
        size = int(chunk[1], 16)
        if size == 0:
            return b"".join(chunks), False
        chunks.append(data[chunk.end() : chunk.end() + size])
        at = chunk.end() + size
        at += 2 if data.startswith(b"\r\n", at) else data.startswith(b"\n", at)
    return b"".join(chunks), True


def _decoded(data: bytes, coding: str) -> tuple[bytes, bool]:
    """Removes one coding from `data`; also returns whether its end is missing."""
    if coding in ("gzip", "deflate") and not _is_plain(data):
        problem: zlib.error | None = None
        for form in (47,) if coding == "gzip" else (47, -15):  # gzip or zlib; some servers send bare deflate
            unpacker = zlib.decompressobj(wbits=form)
            try:
                return unpacker.decompress(data, MAX_BYTES + 1), not unpacker.eof
            except zlib.error as error:
                problem = error
        raise ValueError(f"page cannot be decoded by its declared coding ({coding}: {problem})")
    if coding in ("br", "zstd") and not _is_plain(data):
        try:
            unpacked = pyarrow.input_stream(pyarrow.py_buffer(data), compression={"br": "brotli"}.get(coding, coding))
            return unpacked.read(MAX_BYTES + 1), False
        except (OSError, pyarrow.ArrowException) as error:
            raise ValueError(f"page cannot be decoded by its declared coding ({coding}: {str(error)[:80]})") from error
    return data, False


def _is_plain(data: bytes) -> bool:
    """Whether bytes are already decoded text: compressed data has control characters among its first bytes."""
    return not any(byte < 9 or 13 < byte < 27 for byte in data[:400])
