"""Aozora Bunko texts: removes ruby, editors' notes, header and colophon; restores characters outside JIS."""

import re

from kanana_jax.data.extract import encoding
from kanana_jax.data.extract.markup import Extracted, Report, finish

_RULE = re.compile(r"^-{20,}$", re.MULTILINE)
_COLOPHON = re.compile(r"^底本(?:：|:|の親本：)", re.MULTILINE)
_RUBY = re.compile(r"《[^《》\n]{0,200}》")
_BAR = re.compile(r"[｜|](?=[^｜|《\n]{1,100}《)")
_GAIJI = re.compile(r"※［＃([^［］\n]{1,200})］")
_JIS_PLACE = re.compile(r"(\d)-(\d{1,2})-(\d{1,2})")
_UNICODE = re.compile(r"U\+([0-9A-Fa-f]{4,6})")
_HEADING = re.compile(r"［＃[^［］\n]{0,200}(大|中|小)見出し］")
_NOTE = re.compile(r"［＃[^［］\n]{0,500}］")
_LEVELS = {"大": "## ", "中": "### ", "小": "#### "}


def convert(data: bytes, name: str = "") -> Extracted:
    """The work's text; the title is its first line."""
    report = Report()
    text = encoding.decode(data, report, "shift_jis")
    head, body = _split_header(text)
    colophons = list(_COLOPHON.finditer(body))
    if colophons:
        # A work may contain the word itself: the colophon is the last block that begins with it.
        start = next((c.start() for c in colophons if body.find("\n\n\n", c.start()) < 0), colophons[-1].start())
        report.count("colophon_letters", len(body) - start)
        body = body[:start]
    body = _GAIJI.sub(lambda m: _gaiji(m[1], report), body)
    body, ruby = _RUBY.subn("", _BAR.sub("", body))
    report.count("ruby_dropped", ruby)
    lines = [_heading(line) for line in body.split("\n")]
    body, notes = _NOTE.subn("", "\n".join(lines))
    report.count("notes_dropped", notes)
    title = _NOTE.sub("", _RUBY.sub("", head.strip().split("\n")[0])) if head.strip() else None
    return finish(body, title, report)


def _split_header(text: str) -> tuple[str, str]:
    rules = list(_RULE.finditer(text[:20_000]))
    if len(rules) >= 2:  # the explanation of the marks stands between two rules
        return text[: rules[0].start()], text[rules[1].end() :]
    head, blank, body = text.lstrip("\n").partition("\n\n")
    # Title, perhaps a subtitle, and author: short lines before the first empty line.
    if blank and head.count("\n") <= 5 and all(len(line) < 60 for line in head.split("\n")):
        return head, body
    return "", text


def _gaiji(note: str, report: Report) -> str:
    """The character described by an editor's note, from its position in JIS X 0213 or its code point."""
    place, point = _JIS_PLACE.search(note), _UNICODE.search(note)
    if place is not None:
        plane, row, cell = (int(n) for n in place.groups())
        code = bytes([row + 0xA0, cell + 0xA0]) if row < 95 and cell < 95 else b""
        try:
            character = ((b"\x8f" if plane == 2 else b"") + code).decode("euc_jis_2004")
        except UnicodeDecodeError:
            character = ""
    else:
        character = chr(int(point[1], 16)) if point is not None and int(point[1], 16) < 0x110000 else ""
    if not character or not character.isprintable():
        report.count("characters_lost")
        return "〓"
    report.count("characters_restored")
    return character


def _heading(line: str) -> str:
    found = _HEADING.search(line)
    if found is None:
        return line
    text = _NOTE.sub("", line).strip(" 　")
    return _LEVELS[found[1]] + text if text else line
