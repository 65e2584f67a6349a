"""Archives by strangers: names stay inside, bombs are refused, links are passed over."""

import gzip
import io
import tarfile
import zipfile

import pytest

from kanana_jax.data.extract import archives
from kanana_jax.data.extract.archives import Limits, unpack
from kanana_jax.data.extract.markup import Report


def tar(*members: tuple[str, bytes, bytes], mode: str = "w:gz") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, content, kind in members:
            info = tarfile.TarInfo(name)
            info.type, info.size, info.linkname = kind, len(content), "/etc/passwd"
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def zipped(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


F = tarfile.REGTYPE


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_files_come_out_in_order(mode):
    data = tar(("b.tex", b"2", F), ("a/c.tex", b"1", F), mode=mode)
    assert archives.is_archive(data)
    assert list(unpack(data, Report()).items()) == [("b.tex", b"2"), ("a/c.tex", b"1")]
    assert unpack(zipped({"x.tex": b"3"}), Report()) == {"x.tex": b"3"}
    assert unpack(gzip.compress(b"4") + gzip.compress(b"5"), Report()) == {"": b"45"}


def test_names_that_leave_the_archive_and_links_are_counted():
    members = [("../up.tex", b"x", F), ("/abs.tex", b"x", F), ("c:/x.tex", b"x", F), ("a/../../b", b"x", F)]
    links = [("l", b"", tarfile.SYMTYPE), ("h", b"", tarfile.LNKTYPE), ("d", b"", tarfile.CHRTYPE)]
    report = Report()
    assert unpack(tar(*members, *links, ("ok.tex", b"y", F)), report) == {"ok.tex": b"y"}
    assert report.as_dict() == {"unsafe_names": 4, "links_and_devices": 3}
    report = Report()
    assert unpack(zipped({"..\\up.tex": b"x", "/abs": b"x", "ok": b"y"}), report) == {"ok": b"y"}
    assert report.as_dict() == {"unsafe_names": 2}


@pytest.mark.parametrize(
    "bomb",
    [
        gzip.compress(b"\0" * (8 << 20)),
        tar(("a", b"\0" * (8 << 20), F)),
        zipped({"a": b"\0" * (8 << 20)}),
        zipped({f"a{i}": b"\0" * (1 << 20) for i in range(8)}),
    ],
)
def test_bombs_are_refused(bomb):
    with pytest.raises(ValueError, match="unpacks to more"):
        unpack(bomb, Report(), Limits(ratio=100))


def test_limits_on_members_and_sizes():
    data = tar(*((f"f{i}", b"x", F) for i in range(20)))
    with pytest.raises(ValueError, match="more than 10 entries"):
        unpack(data, Report(), Limits(members=10))
    report = Report()
    assert unpack(tar(("big", b"x" * 100, F), ("ok", b"x", F)), report, Limits(member_bytes=50)) == {"ok": b"x"}
    assert report.as_dict() == {"oversized_files": 1}


@pytest.mark.parametrize(
    "data",
    [
        gzip.compress(b"hello" * 100)[:-9],
        tar(("a", b"x" * 5000, F))[:60],
        zipped({"a": b"x"})[:-10],
        b"PK\x03\x04" + b"x" * 100,
        b"\x1f\x8b" + b"x" * 100,
        gzip.compress((b"x" * 257 + b"ustar" + b"\0" * 250) * 3),
    ],
    # Bytes hold the time, and two test processes must know a case by one name.
    ids=["cut gzip", "cut tar", "cut zip", "zip in name", "gzip in name", "no tar inside"],
)
def test_broken_archives_are_value_errors(data):
    with pytest.raises(ValueError):
        unpack(data, Report())


def test_chained_long_names_do_not_recurse():
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 1
    block = header.tobuf(tarfile.GNU_FORMAT) + b"x" + b"\0" * 511
    with pytest.raises(ValueError):
        unpack(block * 3000, Report())


def _raw(name: bytes, content: bytes, kind: bytes, size: bytes = b"") -> bytes:
    """A member of a tar as bytes, whatever it says of its size."""
    head = bytearray(512)
    head[: len(name)], head[100:108], head[124:136] = name, b"0000644\0", size or b"%011o\0" % len(content)
    head[148:156], head[156:157], head[257:265] = b"        ", kind, b"ustar\x0000"
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head) + content + bytes(-len(content) % 512)


@pytest.mark.parametrize("kind", [b"x", b"g", b"L", b"K"])
def test_long_headers_of_a_tar_are_refused_before_they_are_read(kind):
    end = _raw(b"a.tex", b"x", b"0") + bytes(1024)
    for content in (b"9" * 5000, b"a" * 70_000, b"1 " * 40_000):
        with pytest.raises(ValueError, match="header"):
            unpack(gzip.compress(_raw(b"h", content, kind) + end), Report())
    many = (_raw(b"h", b"25 comment=aaaaaaaaaaaaaaa\n" + b"a" * 60_000, kind) + _raw(b"b", b"", b"0")) * 200
    with pytest.raises(ValueError, match=r"header|broken"):
        unpack(gzip.compress(many + end), Report(), Limits(ratio=1e9))
    with pytest.raises(ValueError):
        unpack(_raw(b"h", b"", kind, b"\xff" * 12) + end, Report())


def test_long_names_that_people_use_come_out():
    name = "a/" * 60 + "한글이름" * 30 + ".tex"
    for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz", format=form) as archive:
            info = tarfile.TarInfo(name)
            info.size, info.mtime = 1, 1.5
            archive.addfile(info, io.BytesIO(b"x"))
        assert unpack(buffer.getvalue(), Report()) == {name: b"x"}


def test_a_directory_of_a_zip_is_counted_before_it_is_read():
    entry = zipped({"a": b""})
    with pytest.raises(ValueError, match="more than 1 entries"):
        unpack(entry + entry[entry.index(b"PK\x01\x02") :] * 20, Report(), Limits(members=1))
