"""Which records of a crawl are documents, and how their bodies are read."""

import gzip
import zlib

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from kanana_jax.data.extract import crawl, files
from kanana_jax.data.filters import job
from kanana_jax.data.filters.rules import FilterConfig
from kanana_jax.data.read.record import Broken, Skipped
from kanana_jax.errors import UserError
from kanana_jax.files import read_json

PAGE = "<html><body><p>강가의 방앗간은 올해 문을 닫는다.</p></body></html>".encode()
TEXT = "강가의 방앗간은 올해 문을 닫는다."
HTML = "Content-Type: text/html; charset=utf-8\r\n"
HTTP = "application/http; msgtype=response"


def record(block: bytes, kind: str = "response", of: str = HTTP, more: str = "", name: str = "a") -> bytes:
    head = f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Target-URI: http://mill.example/{name}\r\n{more}"
    head += f"WARC-Record-ID: <urn:uuid:{name}>\r\n" if "Record-ID" not in more else ""
    return f"{head}Content-Type: {of}\r\nContent-Length: {len(block)}\r\n\r\n".encode() + block + b"\r\n\r\n"


def read(tmp_path, *records: bytes, name: str = "crawl.warc"):
    (tmp_path / name).write_bytes(b"".join(records))
    return [page for _, page in files.read_files(tmp_path / name)]


def response(status: str, fields: str = HTML, body: bytes = PAGE) -> bytes:
    return f"{status}\r\n{fields}\r\n".encode() + body


@pytest.mark.parametrize(
    "block, reason",
    [
        (response("HTTP/1.1 200 OK"), ""),
        (response("HTTP/1.0 200"), ""),
        (response("HTTP/2 200"), ""),
        (response("HTTP/3 200 "), ""),
        (response("http/1.1  200  fine"), ""),
        (response("HTTP/1.1 203 Non-Authoritative Information"), ""),
        (response("HTTP/1.1 OK"), ""),  # no number, but a page
        (HTML.encode() + b"\r\n" + PAGE, ""),  # no status line
        (PAGE, ""),  # no head
        (response("HTTP/1.1 200 OK", "Content-Type:\r\n text/html\r\n"), ""),
        (response("HTTP/1.1 200 OK").replace(b"\r\n", b"\n"), ""),
        (response("HTTP/1.1 200 OK", "Server: x\r\n"), ""),  # no media type, but a page
        (b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + response("HTTP/1.1 200 OK"), ""),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + response("HTTP/1.1 404 Not Found"), "status 404"),
        (response("HTTP/1.1 206 Partial Content", f"{HTML}Content-Range: bytes 0-78/79\r\n"), ""),
        (response("HTTP/1.1 206 Partial Content", f"{HTML}Content-Range: bytes 0-78/900\r\n"), "status 206"),
        (response("HTTP/1.1 206 Partial Content", f"{HTML}Content-Range: bytes 9-78/79\r\n"), "status 206"),
        (response("HTTP/1.1 301 Moved Permanently"), "status 301"),
        (response("HTTP/2 307"), "status 307"),
        (response("HTTP/1.1 410 Gone"), "status 410"),
        (response("HTTP/1.1 503 Service Unavailable"), "status 503"),
        (response("HTTP/1.1 204 No Content"), "status 204"),
        (response("HTTP/1.1 200 OK", "Content-Type: image/png\r\n"), "not HTML"),
        (response("HTTP/1.1 200 OK", "Server: x\r\n", b"\x89PNG\0"), "not HTML"),
        (b"", "empty"),
    ],
)
def test_what_a_server_gave_as_a_page_is_a_document(tmp_path, block, reason):
    [page] = read(tmp_path, record(block))
    if reason:
        assert isinstance(page, Skipped) and page.reason == reason
    else:
        assert page["text"] == TEXT and page["url"] == "http://mill.example/a"


def test_kinds_of_records(tmp_path):
    """One of each; a text converted from a page of the same file would be that page a second time."""
    refers = "WARC-Refers-To: <urn:uuid:{}>\r\n"
    found = read(
        tmp_path,
        record(b"software: x\r\n", "warcinfo", "application/warc-fields"),
        record(
            b"GET / HTTP/1.1\r\nAccept: text/html\r\n\r\n", "request", "application/http; msgtype=request", name="q"
        ),
        record(response("HTTP/1.1 200 OK"), name="one"),
        record(b"via: x\r\n", "metadata", "application/warc-fields", name="m"),
        record(response("HTTP/1.1 200 OK"), "revisit", name="two"),
        record(PAGE.decode().encode("cp949"), "resource", "text/html; charset=euc-kr", name="three"),
        record(b"\x89PNG\0", "resource", "image/png", name="four"),
        record("첫 줄\n둘째 줄\n".encode(), "conversion", "text/plain", refers.format("elsewhere"), name="five"),
        record("첫 줄\n".encode(), "conversion", "text/plain", refers.format("one"), name="six"),
    )
    got = [(page.reason if isinstance(page, Broken) else (page["text"], page["meta"]["format"])) for page in found]
    assert got == [
        (TEXT, "html"),
        "revisit",
        (TEXT, "html"),
        "not HTML",
        ("첫 줄\n둘째 줄", "text"),
        "converted from a page that was read",
    ]


def test_texts_of_a_wet_file(tmp_path):
    wet = record("한 줄".encode(), "conversion", "text/plain", "WARC-Refers-To: <urn:uuid:x>\r\n")
    (tmp_path / "a.warc.wet.gz").write_bytes(gzip.compress(wet))
    (tmp_path / "b.warc.zst").write_bytes(zstandard.compress(record(response("HTTP/1.1 200 OK"))))
    assert [page["text"] for _, page in files.read_files(tmp_path)] == ["한 줄", TEXT]


def bare(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


def chunked(data: bytes, size: int = 7, more: str = "") -> bytes:
    parts = [data[i : i + size] for i in range(0, len(data), size)]
    return b"".join(f"{len(p):x}{more}\r\n".encode() + p + b"\r\n" for p in parts) + b"0\r\n\r\n"


@pytest.mark.parametrize(
    "fields, data, is_cut",
    [
        ("", PAGE, False),
        ("Content-Length: 79\r\n", PAGE, False),
        ("Content-Length: 5000\r\n", PAGE, True),
        ("Content-Encoding: gzip\r\n", gzip.compress(PAGE, mtime=0), False),
        ("Content-Encoding: x-gzip\r\n", gzip.compress(PAGE, mtime=0), False),
        ("Content-Encoding: gzip\r\n", gzip.compress(PAGE, mtime=0)[:-9], True),
        ("Content-Encoding: deflate\r\n", zlib.compress(PAGE), False),
        ("Content-Encoding: deflate\r\n", bare(PAGE), False),
        ("Content-Encoding: zstd\r\n", zstandard.compress(PAGE), False),
        ("Content-Encoding: deflate, gzip\r\n", gzip.compress(zlib.compress(PAGE), mtime=0), False),
        ("Content-Encoding: deflate\r\nContent-Encoding: gzip\r\n", gzip.compress(zlib.compress(PAGE), mtime=0), False),
        ("Content-Encoding: gzip\r\n", PAGE, False),  # taken off by the crawl
        ("Content-Encoding: br\r\n", PAGE, False),
        ("Content-Encoding: deflate\r\n", "글 <p>".encode(), False),
        ("Transfer-Encoding: chunked\r\n", chunked(PAGE), False),
        ("Transfer-Encoding: chunked\r\n", chunked(PAGE, more=" ;x=y"), False),
        ("Transfer-Encoding: chunked\r\n", PAGE, False),
        ("Transfer-Encoding: chunked\r\n", chunked(PAGE)[:-5], True),
        ("Transfer-Encoding: gzip, chunked\r\n", chunked(gzip.compress(PAGE, mtime=0)), False),
        ("Transfer-Encoding: chunked\r\nContent-Encoding: gzip\r\n", chunked(gzip.compress(PAGE, mtime=0), 30), False),
    ],
)
def test_codings_are_taken_off(tmp_path, fields, data, is_cut):
    [page] = read(tmp_path, record(response("HTTP/1.1 200 OK", HTML + fields, data)))
    assert page["text"] in (TEXT, "글") and ("truncated" in page["meta"].get("extraction", {})) == is_cut


def test_brotli(tmp_path):
    packer = pytest.importorskip("brotli")
    packed = packer.compress(PAGE * 20)
    for data, ok in ((packed, True), (packed[:-4], False)):
        [page] = read(tmp_path, record(response("HTTP/1.1 200 OK", f"{HTML}Content-Encoding: br\r\n", data)))
        assert TEXT in page["text"] if ok else "decoded by its declared coding" in page.reason


def test_a_payload_that_the_crawl_cut_says_so(tmp_path):
    [page] = read(tmp_path, record(response("HTTP/1.1 200 OK"), more="WARC-Truncated: length\r\n"))
    assert page["text"] == TEXT and page["meta"]["extraction"] == {"truncated": 1}


@pytest.mark.parametrize("charset", ['"EUC-KR"', "euc-kr", "'ks_c_5601-1987'", " euc-kr ; x=y"])
def test_the_charset_of_the_head_is_heard(tmp_path, charset):
    fields = f"Content-Type: text/html; charset={charset}\r\n"
    [page] = read(tmp_path, record(response("HTTP/1.1 200 OK", fields, PAGE.decode().encode("cp949"))))
    assert page["text"] == TEXT


def test_what_was_passed_over_is_counted_and_no_error(tmp_path):
    statuses = ["200 OK", "404 Not Found", "404 Not Found", "302 Found", "500 Oops"]
    (tmp_path / "a.warc").write_bytes(
        b"".join(record(response(f"HTTP/1.1 {status}"), name=str(i)) for i, status in enumerate(statuses))
    )
    job.run({"ko": FilterConfig()}, str(tmp_path / "a.warc"), tmp_path / "out", job.JobConfig(lang="ko", chunk=2))
    report = read_json(tmp_path / "out/report.json")
    assert (report["documents"], report["kept"], report["broken_lines"]) == (1, 1, 0)
    assert report["skipped"] == {"status 302": 1, "status 404": 2, "status 500": 1}


HOSTILE = [
    b"HTTP/1.1 200 OK\r\n",
    b"HTTP/1.1 100 x\r\n\r\n",
    b"a: b\r\n",
    b" more\r\n",
    b": x\r\n",
    b"\n",
    b"\0",
    b"f" * 20,
]
FIELDS = ["Content-Encoding: gzip", "Content-Encoding: br", "Transfer-Encoding: chunked", "Content-Type: text/html"]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([*HOSTILE, *(f"{field}\r\n".encode() for field in FIELDS), PAGE]), max_size=40))
def test_any_block_is_a_page_or_a_reason(tmp_path_factory, parts):
    for page in read(tmp_path_factory.mktemp("x"), record(b"".join(parts)), record(response("HTTP/1.1 200 OK"))):
        assert page.reason if isinstance(page, Broken) else isinstance(page["text"], str)


def test_long_heads_and_many_chunks_take_linear_time():
    for unit in (*HOSTILE, b"x" * 50 + b": y\r\n"):
        crawl._head(unit * 5_000, HTTP, "response")
    tiny = b"1\r\na\r\n" * 500_000
    assert crawl.body(tiny, {"transfer-encoding": "chunked"}) == (b"a" * 500_000, True)
    with pytest.raises(ValueError, match="more than"):
        crawl.body(gzip.compress(b"\0" * (70 << 20)), {"content-encoding": "gzip"})


def test_a_file_that_is_no_crawl(tmp_path):
    (tmp_path / "a.warc.gz").write_bytes(b"\x1f\x8bnothing")
    with pytest.raises(UserError, match="cannot be read"):
        list(files.read_files(tmp_path / "a.warc.gz"))
