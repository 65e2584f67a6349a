"""Reads the files in untrusted .tar.gz, .gz and .zip archives.

Nothing is written to disk. Links, devices and names that point outside the archive are skipped and counted. An archive
that exceeds the limits when unpacked is refused.
"""

import dataclasses
import io
import lzma
import pathlib
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from typing import IO

from kanana_jax.data.extract.markup import Report

_DIGITS = re.compile(rb"\d{100}")


@dataclasses.dataclass(frozen=True)
class Limits:
    """Limits on the contents of an archive.

    Attributes:
      members: number of entries of any kind.
      member_bytes: size of one file; larger files are skipped and counted.
      total_bytes: unpacked size of everything, kept or not.
      header_bytes: size of one extended header of a tar file (for long names).
      headers_bytes: size of all extended headers together.
      ratio: unpacked size over packed size, once a megabyte is unpacked; LaTeX with EPS figures reaches 20.
    """

    members: int = 20_000
    member_bytes: int = 32 << 20
    total_bytes: int = 512 << 20
    header_bytes: int = 64 << 10
    headers_bytes: int = 8 << 20
    ratio: float = 200.0


def is_archive(data: bytes) -> bool:
    return data.startswith((b"\x1f\x8b", b"PK\x03\x04", b"PK\x05\x06")) or data[257:262] == b"ustar"


def unpack(
    data: bytes, report: Report, limits: Limits = Limits(), wanted: Callable[[str], bool] = lambda name: True
) -> dict[str, bytes]:
    """Name → content of the files of an archive, in order; a lone `.gz` file has the empty name.

    Args:
      report: collects what was skipped.
      wanted: whether a name is unpacked.

    Raises:
      ValueError: the archive is truncated, not an archive, or exceeds the limits.
    """
    try:
        if data.startswith(b"PK"):
            return _zip(data, report, limits, wanted)
        if data.startswith(b"\x1f\x8b"):
            data = _gunzip(data, limits)
            if data[257:262] != b"ustar":
                return {"": data}
        return _tar(data, report, limits, wanted)
    # Chained long-name headers make tarfile recurse; zipfile lets struct and decompressor errors through.
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, OSError, RecursionError) as error:
        raise ValueError(f"archive is truncated or broken ({str(error)[:80]})") from error
    # RuntimeError: e.g. an unknown compression; MemoryError: a zip that asks for a window of 4 GB.
    except (RuntimeError, OverflowError, UnicodeError, MemoryError, lzma.LZMAError) as error:
        raise ValueError(f"archive cannot be read ({str(error)[:80]})") from error


def _gunzip(data: bytes, limits: Limits) -> bytes:
    allowed = _allowed(len(data), limits)
    out = []
    size = 0
    for _ in range(1000):  # limits concatenated streams, each of which costs a copy of the rest
        if not data:
            break
        unpacker = zlib.decompressobj(wbits=31)
        out.append(unpacker.decompress(data, allowed - size + 1))
        size += len(out[-1])
        if size > allowed:
            raise ValueError(f"archive unpacks to more than {allowed} bytes")
        if not unpacker.eof:
            raise EOFError("gzip stream ends early")
        data = unpacker.unused_data if unpacker.unused_data.startswith(b"\x1f\x8b") else b""
    return b"".join(out)


def _allowed(packed: int, limits: Limits) -> int:
    return int(min(limits.total_bytes, max(1 << 20, packed * limits.ratio)))


def _safe_name(name: str, report: Report) -> str | None:
    path = pathlib.PurePosixPath(name.replace("\\", "/"))
    drive = bool(path.parts) and path.parts[0].endswith(":")
    if path.is_absolute() or drive or ".." in path.parts or "\0" in name or not path.parts:
        report.count("unsafe_names")
        return None
    return str(path)


def _member(limits: Limits) -> type[tarfile.TarInfo]:
    """A `TarInfo` that checks extended headers before `tarfile` parses them.

    `tarfile`'s patterns are quadratic in runs of digits (CVE-2024-6232), so long runs are refused as well.
    """
    read = 0

    def look(member: tarfile.TarInfo, stream: IO[bytes]) -> None:
        nonlocal read
        read += max(member.size, 0)
        if not 0 <= member.size <= limits.header_bytes or read > limits.headers_bytes:
            raise ValueError(f"archive has a header of {member.size} bytes, or too many")
        at = stream.tell()
        if _DIGITS.search(stream.read(member.size)):
            raise ValueError("archive has a header with an endless number")
        stream.seek(at)

    class Member(tarfile.TarInfo):
        def _proc_pax(self, archive):
            look(self, archive.fileobj)
            return super()._proc_pax(archive)  # ty: ignore[missing-attribute]

        def _proc_gnulong(self, archive):
            look(self, archive.fileobj)
            return super()._proc_gnulong(archive)  # ty: ignore[missing-attribute]

    return Member


def _tar(data: bytes, report: Report, limits: Limits, wanted: Callable[[str], bool]) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:", tarinfo=_member(limits)) as archive:
        for number, member in enumerate(archive, 1):
            if number > limits.members:
                raise ValueError(f"archive has more than {limits.members} entries")
            if not member.isreg() or member.issparse():
                report.count("links_and_devices", not member.isdir())
                continue
            name = _safe_name(member.name, report)
            if name is None or not wanted(name):
                continue
            if member.size > limits.member_bytes:
                report.count("oversized_files")
                continue
            stream = archive.extractfile(member)
            files[name] = stream.read() if stream is not None else b""
    return files


def _zip(data: bytes, report: Report, limits: Limits, wanted: Callable[[str], bool]) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    left = _allowed(len(data), limits)
    if data.count(b"PK\x01\x02") > 10 * limits.members:  # before zipfile creates an object for each entry
        raise ValueError(f"archive has more than {limits.members} entries")
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        if len(archive.infolist()) > limits.members:
            raise ValueError(f"archive has more than {limits.members} entries")
        for info in archive.infolist():
            if info.is_dir():
                continue
            if stat.S_ISLNK(info.external_attr >> 16) or info.flag_bits & 1:  # bit 0: encrypted
                report.count("links_and_devices")
                continue
            name = _safe_name(info.filename, report)
            if name is None or not wanted(name):
                continue
            # The size in the directory cannot be trusted: count the bytes read.
            with archive.open(info) as stream:
                content = stream.read(min(limits.member_bytes, left) + 1)
            left -= len(content)
            if left < 0:
                raise ValueError(f"archive unpacks to more than {_allowed(len(data), limits)} bytes")
            if len(content) > limits.member_bytes:
                report.count("oversized_files")
                continue
            files[name] = content
    return files
