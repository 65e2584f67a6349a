"""Input that was made to break readers: every document ends in text or in one clear error."""

import string
import unicodedata

import pytest
from conftest import guard
from hypothesis import given, settings
from hypothesis import strategies as st

from kanana_jax.data.extract import FORMATS, extract

N = 3000
LONG = 60_000
ANY = [
    "\0",
    "\xff",
    "\ud800",
    " ",
    "\n",
    "\r",
    "\t",
    "`",
    "<",
    "{",
    "[",
    "\\",
    "=",
    '"',
    "*",
    "![",
    "|",
    "&#",
    "$",
    "ㄱ\u200b",
]
PIECES = {
    "html": ["<!--", "<p ", "</p>", "<td>", "<table><tr><td>", "<b><p>", "</x>", "<option>", "<code id=1>", "<ul><li>"],
    "wikitext": ["{{", "[[", "{|\n", "\n{|\n|", "|}", "}}", "<ref>", "<math>", "{{a|", "[[a|", "[http://a ", "'''", "== a ==\n"],
    "latex": ["\\begin{a}", "\\end{a}", "\\footnote{", "\\a[", "\\item[", "\\input{main}", "\\[", "$$", "\\url{", "\\iffalse",
              "\\def\\a", "\\newcommand{\\a}", "\\begin{tabular}{c}", "\\begin{verbatim}", "\\verb|", "%\n", "#1", "\\cite{"],
    "markdown": ["<!--", "```\n", "{%", "[!INCLUDE[", "<sup>", "---\n", "<a name=", "> ", "{#a}"],
    "mdx": ["<A ", "<A b={", "{/*", "export const a = {\n", '{"a"}', "<>"],
    "rst": [".. note::\n   ", "a::\n\n ", "a\n=\n", "=== ===\n", ":a:`b", "`a <", "|a|", "+--+\n"],
    "po": ['msgid "a"\nmsgstr "b"\n', 'msgid "', '"\\', "#, fuzzy\n"],
    "ipynb": ["[", '{"cells":[', '{"a":'],
    "aozora": ["《", "｜", "※［＃", "底本：\n", "-" * 30 + "\n", "※［＃1-99-99］", "※［＃U+D800］"],
    "pdf": ["%PDF-1.7\n", "1 0 obj <<"],
    "docx": ["PK\x03\x04", "PK\x01\x02", "<w:p>"],
    "hwpx": ["PK\x03\x04", "PK\x05\x06", "<hp:t>"],
    "hwp": ["HWP Document File", "\x1a\xb1"],
    "text": ["a"],
}  # fmt: skip


def outcome(data: bytes, format: str) -> str:
    """The text; empty for what is refused with a reason."""
    try:
        text = extract(data, format, "x").text
    except ValueError as error:
        assert str(error) and not isinstance(error, UnicodeError)
        return ""
    assert text == unicodedata.normalize("NFC", text) and text.encode().decode() == text
    assert "\0" not in text and not any("\x01" <= c <= "\x08" for c in text)
    return text


@pytest.mark.parametrize("format", FORMATS)
def test_one_piece_over_and_over(format):
    for piece in [*ANY, *PIECES[format]]:
        outcome((piece * N).encode("utf-8", "surrogatepass"), format)
        outcome(("start " + piece * N + " end").encode("utf-8", "surrogatepass"), format)
    outcome(b"", format)
    outcome(b"\xff\xfe\xfd\x00" * N, format)
    outcome(b"a" * 3_000_000, format)


@pytest.mark.parametrize("format", FORMATS)
def test_what_leads_nowhere_takes_linear_time(format):
    """What begins something, a run of one character, and an end that does not close it."""
    for beginning in ["", *PIECES[format]]:
        for unit in " \t1a\u3000":
            for end in ("x" * 300, "\n" + beginning):
                with guard(60):  # quadratic time would be hours
                    outcome((beginning + unit * LONG + end).encode(), format)


@pytest.mark.parametrize("format", FORMATS)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_mixture_of_pieces(format, data):
    pieces = data.draw(
        st.lists(st.sampled_from([*ANY, *PIECES[format], "가나 ", "x", "\n\n", "}", "]", ">", ")"]), max_size=60)
    )
    source = "".join(pieces)
    text = outcome(source.encode("utf-8", "surrogatepass"), format)
    # Text is a function of the canonical form alone.
    decomposed = unicodedata.normalize("NFD", unicodedata.normalize("NFC", source))
    composed = unicodedata.normalize("NFC", source)
    if "\ud800" not in source and "\xff" not in source:
        assert outcome(decomposed.encode(), format) == outcome(composed.encode(), format) == text


@pytest.mark.parametrize("format", FORMATS)
@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes(format, data):
    outcome(data, format)


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet=string.ascii_letters + " .,가나다日本", min_size=1, max_size=200))
@pytest.mark.parametrize("format", ["html", "wikitext", "latex", "markdown", "mdx", "rst", "text"])
def test_plain_sentences_come_through_whole(format, text):
    assert outcome(text.encode(), format).split() == text.split()


def test_nesting_of_a_hundred_thousand():
    for format, opener, closer in [
        ("html", "<div>", "</div>"),
        ("html", "<ul><li>", "</li></ul>"),
        ("wikitext", "{{a|", "}}"),
        ("wikitext", "[[a|", "]]"),
        ("latex", "{", "}"),
        ("latex", "\\emph{", "}"),
        ("latex", "\\footnote{", "}"),
        ("latex", "\\begin{itemize}\\item ", "\\end{itemize}"),
    ]:
        outcome(f"{opener * 100_000}x{closer * 100_000}".encode(), format)
