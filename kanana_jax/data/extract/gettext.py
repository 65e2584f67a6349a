"""gettext catalogues: the translations in order; fuzzy and missing translations are counted and left out."""

import re

from kanana_jax.data.extract import encoding, markup, rst
from kanana_jax.data.extract.markup import Extracted, Report, finish

_CHARSET = re.compile(rb"Content-Type:[^\\\n]{0,100}charset=([\w-]{2,40})", re.IGNORECASE)
_STRING = re.compile(r'"((?:[^"\\]|\\.)*)"\s*$')
_KEYWORD = re.compile(r"(msgctxt|msgid_plural|msgid|msgstr(?:\[\d{1,3}\])?)[ \t]*(\".*)$")
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "a": "", "b": "", "f": "\n", "v": "\n"}


def convert(data: bytes, name: str = "") -> Extracted:
    """The translated text of a `.po` file; reStructuredText is converted if the comments name .rst sources."""
    report = Report()
    charset = _CHARSET.search(data[:8192])
    text = encoding.decode(data, report, charset[1].decode("ascii") if charset else None)
    entries = _entries(text, report)
    from_rst = ".rst:" in text[:100_000]
    parts: list[str] = []
    literal = False  # whether the previous entry ended in `::`, so that this one is code
    for message, translation in entries:
        if literal and ("\n" in translation or message == translation):
            parts.append(markup.fenced(translation))
        else:
            literal = from_rst and translation.rstrip().endswith("::")
            shown = translation.rstrip()[:-1] if literal else translation
            parts.append(rst.inline(shown) if from_rst else shown)
            continue
        literal = False
    title = parts[0].split("\n")[0] if parts else None
    return finish("\n\n".join(part.strip("\n") for part in parts), title, report)


def _entries(text: str, report: Report) -> list[tuple[str, str]]:
    """The (message, translation) of each translated entry."""
    found: list[tuple[str, str]] = []
    fields: dict[str, list[str]] = {}
    fuzzy, current = False, ""

    def close() -> None:
        nonlocal fields, fuzzy, current
        message = "".join(fields.get("msgid", []))
        translations = ["".join(value) for key, value in fields.items() if key.startswith("msgstr")]
        if message:  # the entry with the empty message is the header
            if fuzzy:
                report.count("fuzzy_dropped")
            elif not any(translations):
                report.count("untranslated")
            else:
                report.count("translated")
                found.append((message, next(t for t in translations if t)))
        fields, fuzzy, current = {}, False, ""

    for line in text.split("\n"):
        line = line.strip()
        if line.startswith("#"):
            if current.startswith("msgstr"):
                close()
            if line.startswith("#,") and "fuzzy" in line:
                fuzzy = True
            report.count("obsolete_dropped", line.startswith("#~ msgid "))
            continue
        keyword = _KEYWORD.match(line)
        if keyword is not None:
            if keyword[1] in ("msgid", "msgctxt") and current.startswith("msgstr"):
                close()
            current = keyword[1]
            line = keyword[2]
        string = _STRING.match(line) if line.startswith('"') else None
        if string is not None and current:
            fields.setdefault(current, []).append(_unescape(string[1]))
        elif line:
            report.count("broken_lines")
    close()
    return found


def _unescape(text: str) -> str:
    return _ESCAPE.sub(lambda m: _ESCAPES.get(m[1], m[1]), text) if "\\" in text else text
