"""LaTeX source to tokens.

A token is a string: a control word with the blanks that TeX drops after it, a control symbol, one of
`{ } $ $$ & ~ #n`, a paragraph break, or a run of text. Comments are removed. Text that must not be parsed as TeX
(verbatim text, URLs) is a single token that begins with a control character.
"""

import re
from collections.abc import Iterator

CODE, URL = "\x01", "\x02"
PARAGRAPH = "\n\n"

_TOKEN = re.compile(
    r"(?P<word>\\[a-zA-Z@]+[ \t]*(?:\n(?![ \t]*\n)[ \t]*)?)"
    r"|(?P<symbol>\\.|\\\Z)"
    r"|(?P<comment>%[^\n]*(?:\n[ \t]*)?)"
    r"|(?P<par>\n[ \t]*\n\s*)"
    r"|(?P<special>\$\$|[{}$&~]|#+\d?)"
    r"|(?P<text>[^\\%{}$&~#\n]+|\n)",
    re.DOTALL,
)
_VERBATIM = re.compile(
    r"\\begin[ \t]*\{(verbatim\*?|Verbatim\*?|lstlisting|minted|alltt|code|comment|filecontents\*?|pycode|rawhtml)\}"
)
_INLINE = re.compile(r"\\(?:verb\*?|lstinline(?:\[[^\[\]\n]{0,200}\])?|mintinline(?:\{[^{}\n]{0,50}\})?)([^a-zA-Z*\s])")
_URL = re.compile(r"\\(url|path|nolinkurl|href)[ \t]*\{([^{}\n]{0,2000})\}")
_LANGUAGE = re.compile(r"^[ \t]*(?:\[[^\[\]]{0,300}\][ \t]*)?\{([\w+#-]{1,30})\}")
_OPTION_LANGUAGE = re.compile(r"language=\{?(?:\[\w{1,20}\])?([\w+#-]{1,30})")
_OPTION_CAPTION = re.compile(r"\bcaption[ \t]*=[ \t]*(?:\{(?:\[[^\[\]]{0,200}\])?([^{}]{1,500})\}|([^{},\[\]]{1,200}))")
_OPTION_FLOAT = re.compile(r"\bfloat\b")
_OPTIONS = re.compile(r"^[ \t]*\[[^\[\]]{0,1000}\]")


def tokens(source: str) -> Iterator[str]:
    """The tokens of a source, lazily."""
    at = 0
    missing: set[str] = set()
    while (found := _TOKEN.match(source, at)) is not None:  # None only at the end
        kind, token = found.lastgroup, found[0]
        if kind == "word":
            raw = _verbatim(source, at, missing) if token.startswith(("\\begin", "\\verb", "\\lst", "\\mint")) else None
            if raw is None and token.startswith(("\\url", "\\path", "\\nolinkurl", "\\href")):
                raw = _url(source, at)
            if raw is not None:
                token, at = raw
                if token:
                    yield token
                continue
        elif kind == "symbol" and token == "\\\n":
            token = "\\ "
        at = found.end()
        if kind == "comment":
            # A comment includes its line end, but not an empty line after it.
            if source.startswith("\n", at) and found[0].find("\n") >= 0:
                yield PARAGRAPH
        elif kind == "par":
            yield PARAGRAPH
        else:
            yield token


def _verbatim(source: str, at: int, missing: set[str]) -> tuple[str, int] | None:
    inline = _INLINE.match(source, at)
    if inline is not None:
        closer = "}" if inline[1] == "{" else inline[1]
        line_end = source.find("\n", inline.end(), inline.end() + 2000)
        end = source.find(closer, inline.end(), line_end if line_end >= 0 else inline.end() + 2000)
        return (f"{CODE}\x03{source[inline.end() : end]}", end + 1) if end >= 0 else None
    block = _VERBATIM.match(source, at)
    if block is None or block[1] in missing:
        return None
    closer = f"\\end{{{block[1]}}}"
    end = source.find(closer, block.end())
    if end < 0:
        missing.add(block[1])  # searching again each time would be quadratic in the source
        return None
    after = end + len(closer)
    if block[1].startswith(("comment", "filecontents", "rawhtml")):
        return "", after
    code, language, caption = source[block.end() : end], "", ""
    if block[1] == "minted":
        named = _LANGUAGE.match(code)
        if named is not None:
            code, language = code[named.end() :], named[1]
    elif block[1] != "verbatim":
        options = _OPTIONS.match(code)
        if options is not None:
            named = _OPTION_LANGUAGE.search(options[0])
            code, language = code[options.end() :], named[1].lower() if named else ""
            shown = _OPTION_CAPTION.search(options[0])
            # A floating or numbered listing.
            caption = f"\x0b{shown[1] or shown[2]}" if shown else "\x0b" if _OPTION_FLOAT.search(options[0]) else ""
    return f"{CODE}{language}{caption}\x04{code}", after


def _url(source: str, at: int) -> tuple[str, int] | None:
    found = _URL.match(source, at)
    if found is None:
        return None
    return ("" if found[1] == "href" else URL + found[2].strip()), found.end()


def is_blank(token: str) -> bool:
    return token.isspace() and token != PARAGRAPH


def name_of(token: str) -> str:
    """`\\alpha ` → `alpha`; "" for tokens that are not commands."""
    return token[1:].rstrip() or token[1:] if token.startswith("\\") else ""


def join(parts: list[str]) -> str:
    """Joins tokens to TeX source, with a blank between a control word and a following letter."""
    out: list[str] = []
    for token in parts:
        if token.startswith((CODE, URL)):
            token = re.split("[\x03\x04\x02]", token, maxsplit=1)[-1]
        if out and token[:1].isalpha() and token.isascii() and re.search(r"\\[a-zA-Z@]+\Z", out[-1]):
            out.append(" ")
        out.append(token)
    return "".join(out)
