"""Numbers and addresses as they would be typed in ASCII: one character for one, so that positions stay."""

DASHES = "‐‑‒–—―−－﹘﹣─━"
LIKE_DASHES = "ーｰㅡ"  # letters that stand for a dash, but only between digits
TILDES = "〜～∼"
DOTS = "．。·・ㆍ∙•･"
SPACES = "\t\u00a0\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u200b\u202f\u2060\u3000\ufeff"
OPEN, CLOSE = "（［【〔〈《「｛", "）］】〕〉》」｝"

_WIDE = {c: c - 0xFEE0 for c in range(0xFF01, 0xFF5F)}  # the full-width forms of ASCII
_TEXT = {
    **_WIDE,
    **{ord(c): "-" for c in DASHES},
    **{ord(c): "~" for c in TILDES},
    **{ord(c): "." for c in DOTS},
    **{ord(c): " " for c in SPACES},
    **{ord(c): "(" for c in OPEN + "[{"},
    **{ord(c): ")" for c in CLOSE + "]}"},
}
_NUMBER = {**_TEXT, **{ord(c): "-" for c in LIKE_DASHES}}


def text(piece: str) -> str:
    """Full-width characters, dashes, dots, spaces and brackets in a piece of text as their ASCII equivalents."""
    return piece.translate(_TEXT)


def number(piece: str) -> str:
    """The same for digits and the characters between them, where a long vowel sign is also a dash."""
    return piece.translate(_NUMBER)
