"""HTML: content with its headings, tables, code and formulas; no boilerplate."""

import pytest
from conftest import ROOT

from kanana_jax.data.extract import extract
from kanana_jax.data.extract.html.tree import Node
from kanana_jax.data.extract.markup import Cell, fenced, math, table, tidy

FIXTURES = ROOT / "tests/data/extract/fixtures"


def text(body: str) -> str:
    return extract(f"<html><body>{body}</body></html>".encode(), "html").text


def test_page():
    result = extract((FIXTURES / "page.html").read_bytes(), "html")
    assert result.text == (FIXTURES / "page.html.md").read_text().strip()
    assert result.title == "경사 하강법"


@pytest.mark.parametrize(
    "source, shown",
    [
        ("<p>a\n  b<br>c <i>d</i>e</p><p>f", "a b\nc de\n\nf"),
        ("10<sup>6</sup> m<sup>2</sup> 1<sup>st</sup> H<sub>2</sub>O x<sup>ab</sup>", "10⁶ m² 1st H₂O x^(ab)"),
        ("<ul><li>a<ul><li>b</ul><li><p>c<p>d</ul>", "- a\n  - b\n- c\n  d"),
        ("<ol start=3><li>a<li>b</ol>", "3. a\n4. b"),
        ("<h3>T <small>s</small></h3>x", "### T s\n\nx"),
        ("<pre>a\n  b</pre>", "```\na\n  b\n```"),
        ('<pre data-lang="js">`x` ```\n```y</pre>', "````js\n`x` ```\n```y\n````"),
        ("use <code>a &lt;  b</code> now", "use `a < b` now"),
        ("<table><tr><td>a<td>b<tr><td colspan=2>c</table>", "| a | b |\n| --- | --- |\n| c |  |"),
        (
            "<table><tr><th>a<th>b<tr><td rowspan=2>c<td>d<tr><td>e</table>",
            "| a | b |\n| --- | --- |\n| c | d |\n|  | e |",
        ),
        ("<table><tr><td>only<tr><td>lines</table>", "only\nlines"),
        (
            "<table><tr><td><h2>Layout</h2><p>x<td><table><tr><td>1<td>2</table></table>",
            "## Layout\n\nx\n\n| 1 | 2 |\n| --- | --- |",
        ),
        ("<blockquote>a<p>b</blockquote>", "> a\n>\n> b"),
        ("<ruby>漢<rp>(</rp><rt>かん</rt><rp>)</rp></ruby>字", "漢字"),
        ("<math><mfrac><mn>1</mn><msqrt><mi>α</mi></msqrt></mfrac></math>", r"$\frac{1}{\sqrt{\alpha}}$"),
        (
            "<math><msubsup><mo>∑</mo><mi>i</mi><mi>n</mi></msubsup><mi>sin</mi><mi>x</mi></math>",
            r"$\sum_{i}^{n}\sin x$",
        ),
        ('<math alttext="{\\displaystyle x^{2}}"></math>', "$x^{2}$"),
        ('<script type="math/tex; mode=display">a<b</script>', "$$a<b$$"),
        ('<span class="MathJax">rendered</span><script type="math/tex">a</script>', "$a$"),
        ('<span style="display: none" class="mwe-math-mathml-inline"><math alttext="y"></math></span>', "$y$"),
        ('<p hidden>a</p><p style="display:none">b</p><p aria-hidden="true">c</p>d', "d"),
        ("<script>x</script><style>y</style><noscript>n</noscript><svg><text>t</text></svg>ok", "ok"),
        ('<table><tr><td class="linenos"><pre>1\n2</pre><td><pre>a\nb</pre></table>', "```\na\nb\n```"),
    ],
)
def test_elements(source, shown):
    assert text(source) == shown


BOILERPLATE = [
    "<nav>menu</nav>",
    '<div class="navbar-top">menu</div>',
    '<ul id="sidebarMenu"><li>menu</ul>',
    "<footer>menu</footer>",
    '<div role="navigation">menu</div>',
    '<div><a href="a">menu one</a> <a href="b">menu two</a></div>',
    '<section class="related-posts"><p>menu</section>',
    '<form><input value="menu"><button>menu</button><select><option>menu</select></form>',
]


@pytest.mark.parametrize("furniture", BOILERPLATE)
def test_boilerplate_goes(furniture):
    content = "<p>" + "A sentence that the page is about. " * 5
    result = text(f"{furniture}<h1>Title</h1>{content}{furniture}")
    assert "menu" not in result and result.startswith("# Title\n\nA sentence")


def test_what_is_most_of_the_page_is_content_whatever_its_name():
    body = '<div class="sidebar">' + "<p>All of the text is in here.</p>" * 10 + "</div><p>x</p>"
    assert text(body).count("All of the text") == 10


def test_links_inside_data_are_no_boilerplate():
    cell = '<td><a href="x">link</a></td>'
    body = (
        f"<p>{'text ' * 50}</p><table><tr><th>a<th>b</tr><tr>{cell * 2}</tr></table><ul><li>x<ul><li><a>y</a></ul></ul>"
    )
    assert "| link | link |" in text(body) and "  - y" in text(body)


def test_charset_of_the_page():
    page = '<meta charset="{}"><p>한국어 문서의 본문입니다.</p>'
    for declared in ("euc-kr", "utf-8"):  # the second is wrong
        assert extract(page.format(declared).encode("cp949"), "html").text == "한국어 문서의 본문입니다."


def test_deep_nesting():
    for tag in ("div", "blockquote", "ul><li", "table><tr><td", "span", "b", "sup", "math", "x-y"):
        assert isinstance(text(f"<p>start<{tag}>" + f"<{tag}>" * 100_000), str)
    assert "start" in text("<p>start</p>" + "<div>" * 100_000)


def test_markdown_pieces():
    assert tidy("a  \n\n\n\nb\n```\nx\n\n\n\ny\n```\n") == "a\n\nb\n```\nx\n\n\n\ny\n```"
    assert fenced("") == "" and math("", True) == "" and table([]) == ""
    assert math(r"{\displaystyle a}+b", False) == r"${\displaystyle a}+b$"
    assert table([[Cell("a", 10**9)], [Cell("b", 1, 10**9), Cell("c")], [Cell("d")]]).count("\n") == 3
    assert Node("a", {"class": "x  y"}, []).classes() == ["x", "y"]
