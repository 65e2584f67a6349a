"""Files, folders, crawls and dumps as records."""

import bz2
import gzip
import json
import sys

import pytest
from conftest import ROOT

from kanana_jax.data.extract import files
from kanana_jax.data.read.record import Broken
from kanana_jax.errors import UserError

FIXTURES = ROOT / "tests/data/extract/fixtures"


def test_a_folder_in_order_with_its_projects(tmp_path):
    (tmp_path / "b.md").write_text("# 둘")
    (tmp_path / "a.html").write_text("<p>하나</p>")
    (tmp_path / "skip.bin").write_bytes(b"x")
    (tmp_path / "c.ipynb").write_text("{")
    (tmp_path / "paper").mkdir()
    (tmp_path / "paper/x.tex").write_text("\\documentclass{a}\\begin{document}\\input{y}\\end{document}")
    (tmp_path / "paper/y.tex").write_text("셋")
    got = list(files.read_files(tmp_path))
    assert [where.rsplit("/", 1)[-1] for where, _ in got] == ["a.html", "b.md", "c.ipynb", "x.tex"]
    assert [r.reason[:14] if isinstance(r, Broken) else r["text"] for _, r in got] == [
        "하나",
        "# 둘",
        "not a notebook",
        "셋",
    ]
    assert got[1][1]["meta"] == {"format": "markdown", "title": "둘"}
    json.dumps([r for _, r in got if not isinstance(r, Broken)])


def test_a_folder_that_is_a_project():
    (where, record) = next(iter(files.read_files(FIXTURES / "paper")))
    assert where.endswith("main.tex") and record["text"] == (FIXTURES / "paper.md").read_text().strip()
    assert len(list(files.read_files(FIXTURES / "paper"))) == 1


def test_a_format_for_names_that_do_not_tell(tmp_path):
    (tmp_path / "x.txt").write_bytes("日本語の文章です。".encode("cp932"))
    [(_, record)] = files.read_files(tmp_path, "text")
    assert record["text"] == "日本語の文章です。"
    with pytest.raises(UserError, match="no known form of text"):
        list(files.read_files(tmp_path / "x.txt"))


PAGE = "<page><title>{t}</title><ns>{ns}</ns><id>{i}</id><revision><id>9</id><text>{x}</text></revision></page>"


@pytest.mark.parametrize("suffix, pack", [(".xml", bytes), (".xml.bz2", bz2.compress), (".xml.gz", gzip.compress)])
def test_wiki_dumps(tmp_path, suffix, pack):
    pages = [
        ("가", 0, 1, "== 절 ==\n글 &lt;math&gt;x&lt;/math&gt;"),
        ("토론:가", 1, 2, "x"),
        ("나", 0, 3, "#넘겨주기 [[가]]"),
    ]
    xml = "".join(PAGE.format(t=t, ns=ns, i=i, x=x) for t, ns, i, x in pages)
    file = tmp_path / f"dump{suffix}"
    file.write_bytes(pack(f'<mediawiki xmlns="http://x/">{xml}</mediawiki>'.encode()))
    [(where, record)] = files.read_files(file)
    assert where == f"{file}#1"
    assert record == {
        "text": "## 절\n\n글 $x$",
        "meta": {"format": "wikitext", "title": "가", "extraction": {"formulas": 1}},
    }
    file.write_bytes(pack(f"<mediawiki>{xml}".encode()))
    with pytest.raises(UserError, match="truncated"):
        list(files.read_files(file))


def response(url: str, kind: str, body: bytes, more: str = "") -> bytes:
    http = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\n{more}\r\n".encode() + body
    head = f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: {url}\r\nWARC-Record-ID: <urn:uuid:{url[-1]}>\r\n"
    head += f"Content-Type: application/http; msgtype=response\r\nContent-Length: {len(http)}\r\n\r\n"
    return gzip.compress(head.encode() + http + b"\r\n\r\n")


def test_crawls(tmp_path):
    korean = "<p>한국어 쪽의 본문입니다.</p>".encode("cp949")
    bomb = gzip.compress(b"\0" * (70 << 20))
    pages = [
        response("http://x/1", "text/html; charset=euc-kr", korean),
        response("http://x/2", "image/png", b"\x89PNG"),
        response("http://x/3", "text/html", gzip.compress(b"<p>three"), "Content-Encoding: gzip\r\n"),
        response("http://x/4", "text/html", b"<p>four", "Content-Encoding: gzip\r\n"),
        response("http://x/5", "text/html", b"7\r\n<p>five\r\n0\r\n\r\n", "Transfer-Encoding: chunked\r\n"),
        response("http://x/6", "text/html", bomb, "Content-Encoding: gzip\r\n"),
        response("http://x/7", "text/html; charset=none", b"<p>seven"),
        response("http://x/8", "text/html", b"<p>eight" * 100)[:-12],
    ]
    (tmp_path / "crawl.warc.gz").write_bytes(b"".join(pages))
    got = [record for _, record in files.read_files(tmp_path)]
    texts = [(r["url"][-1], r["text"]) for r in got if not isinstance(r, Broken)]
    assert texts == [("1", "한국어 쪽의 본문입니다."), ("3", "three"), ("4", "four"), ("5", "five"), ("7", "seven")]
    reasons = [r.reason for r in got if isinstance(r, Broken)]
    assert reasons == ["not HTML", "page has more than 67108864 bytes", "page is truncated"]


@pytest.mark.parametrize("library, name", [("resiliparse", "a.html"), ("pypdfium2", "a.pdf"), ("fastwarc", "a.warc")])
def test_a_missing_library_is_named(tmp_path, monkeypatch, library, name):
    for module in (library, f"{library}.warc", f"{library}.parse.html"):
        monkeypatch.setitem(sys.modules, module, None)
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(UserError, match=f"pip install {library}"):
        list(files.read_files(tmp_path))


def test_suffixes_are_all_read():
    assert {".warc.gz", ".xml.bz2", ".tar.gz", ".po", ".pdf", ".htm"} <= set(files.SUFFIXES)
