"""Small office files for tests, written from the formats' specifications."""

import io
import struct
import zipfile
import zlib

SECTOR = 512


def zipped(parts: dict[str, str | bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return stream.getvalue()


def docx(body: str, **parts: str) -> bytes:
    """A Word document of the XML of its body; further parts by name (`footnotes`, `styles`)."""
    spaces = (
        'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main" '
        'xmlns:m="http://schemas.openxmlformats.org/officeDocument/2006/math" '
        'xmlns:mc="http://schemas.openxmlformats.org/markup-compatibility/2006"'
    )
    files = {"word/document.xml": f"<w:document {spaces}><w:body>{body}</w:body></w:document>"}
    for name, inner in parts.items():
        files[f"word/{name}.xml"] = f"<w:{name} {spaces}>{inner}</w:{name}>"
    return zipped(files)


def hwpx(*sections: str, header: str = "", manifest: str = "", title: str = "") -> bytes:
    spaces = (
        'xmlns:hp="http://www.hancom.co.kr/hwpml/2011/paragraph" xmlns:hs="http://www.hancom.co.kr/hwpml/2011/section"'
    )
    files = {"mimetype": "application/hwp+zip", "META-INF/manifest.xml": f"<m>{manifest}</m>"}
    files["Contents/content.hpf"] = (
        f'<o:package xmlns:o="http://www.idpf.org/2007/opf/"><o:title>{title}</o:title></o:package>'
    )
    files["Contents/header.xml"] = f'<hh:head xmlns:hh="http://www.hancom.co.kr/hwpml/2011/head">{header}</hh:head>'
    for number, inner in enumerate(sections):
        files[f"Contents/section{number}.xml"] = f"<hs:sec {spaces}>{inner}</hs:sec>"
    return zipped(files)


def record(tag: int, level: int, payload: bytes = b"") -> bytes:
    """A record of HWP 5.0, §4.1."""
    size = min(len(payload), 0xFFF)
    head = struct.pack("<I", tag | level << 10 | size << 20)
    return head + (struct.pack("<I", len(payload)) if size == 0xFFF else b"") + payload


def paragraph(level: int, text: str, shape: int = 0, controls: bytes = b"") -> bytes:
    """A paragraph whose text has `\\x0b`, `\\x11` … for the places of controls, which are filled up to eight units."""
    units = b"".join(
        struct.pack("<8H", ord(c), *[0] * 6, ord(c)) if c in "\x02\x03\x0b\x0f\x10\x11\x09" else c.encode("utf-16-le")
        for c in text
    )
    head = struct.pack("<IIHBBHHHI", len(units) // 2, 0, shape, 0, 0, 0, 0, 0, 0)
    return record(66, level, head) + record(67, level + 1, units + "\r".encode("utf-16-le")) + controls


def control(level: int, kind: bytes, inner: bytes, more: bytes = b"") -> bytes:
    return record(71, level, kind[::-1] + more) + inner


def cell(level: int, column: int, row: int, inner: bytes, across: int = 1, down: int = 1) -> bytes:
    return record(72, level, struct.pack("<IIHHHH", 1, 0, column, row, across, down) + bytes(26)) + inner


def hwp(*sections: bytes, flags: int = 1, shapes: bytes = b"", version: int = 0x05010001) -> bytes:
    """A Hangul document of the records of its sections."""
    header = b"HWP Document File".ljust(32, b"\0") + struct.pack("<II", version, flags)
    pack = _deflated if flags & 1 else bytes
    streams = {"FileHeader": header.ljust(256, b"\0"), "DocInfo": pack(shapes)}
    return compound(streams | {f"BodyText/Section{n}": pack(section) for n, section in enumerate(sections)})


def _deflated(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


def compound(streams: dict[str, bytes]) -> bytes:
    """A compound file ([MS-CFB], version 3); streams are padded so that none is a mini stream."""
    entries: list[tuple[str, int, int, int, list[int]]] = [("Root Entry", 5, 0xFFFFFFFE, 0, [])]
    places: dict[str, int] = {"": 0}
    sectors: list[bytes] = []
    chains: list[int] = []
    for path, content in streams.items():
        content = content.ljust(4096, b"\0")
        folder, _, name = path.rpartition("/")
        if folder not in places:
            places[folder] = len(entries)
            entries[0][4].append(len(entries))
            entries.append((folder, 1, 0, 0, []))
        count = -(-len(content) // SECTOR)
        entries[places[folder]][4].append(len(entries))
        entries.append((name, 2, len(sectors), len(content), []))
        chains += [*range(len(sectors) + 1, len(sectors) + count), 0xFFFFFFFE]
        sectors += [content[i * SECTOR : (i + 1) * SECTOR].ljust(SECTOR, b"\0") for i in range(count)]
    directory = _directory(entries)
    first = len(sectors)
    count = len(directory) // SECTOR
    chains += [*range(first + 1, first + count), 0xFFFFFFFE]
    sectors += [directory[i * SECTOR : (i + 1) * SECTOR] for i in range(count)]
    tables = 1
    while len(chains) + tables > tables * SECTOR // 4:
        tables += 1
    places_of_tables = list(range(len(sectors), len(sectors) + tables))
    chains += [0xFFFFFFFD] * tables
    fat = struct.pack(f"<{len(chains)}I", *chains).ljust(tables * SECTOR, b"\xff")
    header = struct.pack(
        "<8s16sHHHHH6sIIIIIIIIII", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", bytes(16), 0x3E, 3, 0xFFFE, 9, 6, bytes(6), 0, tables,
        first, 0, 4096, 0xFFFFFFFE, 0, 0xFFFFFFFE, 0, *places_of_tables[:1],
    )  # fmt: skip
    header += struct.pack(f"<{tables - 1}I", *places_of_tables[1:])
    return header.ljust(SECTOR, b"\xff") + b"".join(sectors) + fat


def _directory(entries) -> bytes:
    """Entries of a storage as a list by their right siblings, in the order that a tree needs."""
    right, child = dict.fromkeys(range(len(entries)), 0xFFFFFFFF), dict.fromkeys(range(len(entries)), 0xFFFFFFFF)
    for at, (*_, children) in enumerate(entries):
        ordered = sorted(children, key=lambda i: (len(entries[i][0]), entries[i][0].upper()))
        if ordered:
            child[at] = ordered[0]
        right |= dict(zip(ordered, ordered[1:]))
    out = b""
    for at, (name, kind, start, size, _) in enumerate(entries):
        raw = (name + "\0").encode("utf-16-le")
        out += struct.pack(
            "<64sHBBIII16sIQQIQ",
            raw,
            len(raw),
            kind,
            1,
            0xFFFFFFFF,
            right[at],
            child[at],
            bytes(16),
            0,
            0,
            0,
            start,
            size,
        )
    return out + bytes(-len(out) % SECTOR)
