"""What a page is about stays, whatever it is called; what the site puts around it goes."""

import pytest

from kanana_jax.data.extract import extract
from kanana_jax.data.extract.html.names import Named, named

PROSE = (
    "<p>장터는 닷새마다 열린다. 산 너머 마을에서도 사람들이 곡식과 그릇을 지고 왔다. 해가 기울면 장꾼들은 짐을 꾸렸다.</p>"
    "<p>The ferry left before dawn. Nobody on the quay had seen the captain, and the mail lay where it was.</p>"
)
LONG = PROSE * 6
SAID = "<p>그 값은 요청을 보낼 때마다 함께 간다. 서버는 그것으로 손님을 알아본다.</p>"


def text(body: str, attributes: str = "") -> str:
    return extract(f"<html><body {attributes}>{body}</body></html>".encode(), "html").text


SECTIONS = [
    '<section id="social-login"><h2>KEEP</h2>{}</section>',  # Sphinx 5, docutils
    '<div class="section" id="comments"><h2>KEEP</h2>{}</div>',  # Sphinx 3
    '<span id="footer"></span><h2>KEEP</h2>{}',  # a target before a heading
    '<h2 id="how-to-share-a-menu">KEEP</h2>{}',  # mdBook, Hugo, Jekyll
    '<h2 class="anchor sidebar_h2x" id="advertisement">KEEP</h2>{}',  # Docusaurus
    '<div class="sect1"><h2 id="_cookies">KEEP</h2><div class="sectionbody">{}</div></div>',  # Asciidoctor
    '<section id="toc" class="level2"><h2>KEEP</h2>{}</section>',  # pandoc, Quarto
    '<div id="copyright" class="sect2"><div class="titlepage"><h3>KEEP</h3></div>{}</div>',  # DocBook
    '<section class="cookies"><header><h2>KEEP</h2></header>{}</section>',
    '<div id="login"><h2>KEEP</h2>{}</div>',
    '<h2>KEEP</h2><div class="banner-history">{}</div>',
    '<h2>KEEP</h2><div class="share-price">{}</div>',
    '<h2>KEEP</h2><div class="no-sidebar has-comments cookie-consent-given">{}</div>',
    '<h2>KEEP</h2><div class="hentry category-ads tag-newsletter">{}</div>',  # WordPress
    "<h2>KEEP</h2><div class=\"contents_style share-enabled page-footer-visible\">{}</div>",  # Tistory
]  # fmt: skip


@pytest.mark.parametrize("section", SECTIONS)
def test_sections_stay_whatever_they_are_called(section):
    got = text(f"<main><h1>안내</h1>{LONG}{section.format(SAID)}{PROSE}</main>")
    assert "KEEP\n\n그 값은 요청을" in got and got.count("The ferry") == 7
    assert "KEEP\n\n그 값은 요청을" in text(f"<h1>안내</h1>{LONG}{section.format(SAID)}{PROSE}")


@pytest.mark.parametrize(
    "line",
    [
        '<p class="menu">비빔밥 KEEP 구천 원</p>',
        '<p id="share">KEEP</p>',
        '<p class="comments">어제 KEEP 내린 비로 길이 젖었다.</p>',
        '<ul><li class="banner">KEEP 배너를 단다.</li><li id="ad">둘째 일</li></ul>',
        '<p>파일을 고르려면 <span class="menu">KEEP</span>을 누른다.</p>',
        '<p>자세한 것은 <a class="related" href="/x">KEEP</a> 쪽에 있다.</p>',
        '<dl><dt id="flask.login">KEEP()</dt><dd class="related">값을 준다.</dd></dl>',
        '<table><tr><th>이름<th>값</tr><tr id="cookies"><td class="share"><a href="/y">KEEP</a><td>1</table>',
        '<blockquote class="promo">KEEP 라고 그가 말했다.</blockquote>',
        '<aside class="admonition-related admonition"><p>KEEP</p></aside>',
        '<aside class="sidebar"><p class="sidebar-title">곁글</p><p>KEEP 배의 길이는 열두 자다.</p></aside>',
        '<div class="sidebar"><div class="titlepage"><p>곁글</p></div><p>KEEP 배의 길이는 열두 자다.</p></div>',
        '<div class="post" id="share"><h3>나눔</h3><p>KEEP 쓴다.</p></div>',
        '<p>더 볼 것이 있다.</p><ul><li><a href="/1">KEEP 하나</a></li></ul>',
        '<p>더 볼 것:</p><div class="itemizedlist"><ul><li><a href="/1">KEEP 하나</a></li></ul></div>',
        '<div class="table"><table><tr><th>이름<th>쪽</tr><tr><td><a href="/1">KEEP 하나</a><td><a href="/2">둘</a></table></div>',
        '<div class="note"><a href="/1">KEEP 다른 쪽의 설명</a></div>',
        '<aside class="footnote brackets" role="doc-footnote"><p>KEEP</p></aside>',
    ],
)
def test_lines_stay_whatever_they_are_called(line):
    assert "KEEP" in text(f"<main><h1>안내</h1>{LONG}{line}{PROSE}</main>")


@pytest.mark.parametrize("tag", ["body", "main", "article"])
@pytest.mark.parametrize(
    "name", ["no-sidebar", "has-comments", "share-enabled", "sidebar", "left-menu", "cookie-banner"]
)
def test_the_page_itself_is_never_called_machinery(tag, name):
    attributes = f'class="{name}" id="{name}"'
    inner = f"<h1>안내</h1>{PROSE}"
    menu = "".join(f'<div class="menu"><a href="/{i}">DROP 갈래 {i}</a></div>' for i in range(60))
    got = text(menu + inner, attributes) if tag == "body" else text(f"{menu}<{tag} {attributes}>{inner}</{tag}>")
    assert "The ferry" in got and "DROP" not in got


FURNITURE = [
    '<div class="sidebar"><h3>새 글</h3><ul><li><a href="/1">DROP</a></ul></div>',
    '<div class="acme-sidebar"><p>DROP</p></div>',
    '<div id="site-footer">DROP</div>',
    '<div class="docSidebarContainer_b6E3"><p>DROP</p></div>',
    '<div class="theme-doc-toc-mobile tocCollapsible_ETCw">DROP</div>',
    '<div class="navheader"><table><tr><td>DROP</td></tr></table></div>',
    '<ul class="docnav top"><li class="home"><strong>DROP</strong></li></ul>',
    '<p class="breadcrumbs"><a href="/">DROP</a> / <a href="/a">DROP</a></p>',
    '<p class="copyright">DROP 2031</p>',
    '<div class="md-sidebar md-sidebar--primary">DROP</div>',
    '<div class="sharedaddy sd-sharing-enabled"><h3>DROP</h3></div>',
    '<div class="jp-relatedposts"><p>DROP 한 마을의 이야기이다. 길게 적는다.</p></div>',
    '<section class="related-posts"><h3>더 읽기</h3><p>DROP 한 마을의 이야기이다.</p></section>',
    '<div class="cookie-notice"><p>DROP 이 곳은 쿠키를 씁니다. 계속하면 동의한 것으로 봅니다.</p></div>',
    '<div id="cookie-banner"><p>DROP 이 곳은 쿠키를 씁니다.</p></div>',
    '<div id="comments" class="comments-area"><h2>댓글</h2><p>DROP 잘 읽었습니다.</p></div>',
    '<div role="dialog"><p>DROP 소식을 받아 보시겠습니까?</p></div>',
    '<div class="header">다음: <a href="/2">DROP 둘째 장</a>, 앞: <a href="/0">첫째 장</a></div>',
    '<div class="widget-area"><section><h2>DROP 새 글</h2></section></div>',
    '<div class="another_category"><table><tr><th><a href="/1">DROP</a></th><td>2031</td></tr></table></div>',
    '<div id="gnb"><ul><li><a href="/a">DROP</a></ul></div>',
    '<div><a href="/1">DROP 하나</a> <a href="/2">DROP 둘</a></div>',
]


@pytest.mark.parametrize("furniture", FURNITURE)
def test_furniture_goes(furniture):
    for page in (f"<h1>안내</h1>{LONG}{furniture}", f"{furniture}<main><h1>안내</h1>{LONG}{furniture}</main>"):
        got = text(page)
        assert "DROP" not in got and got.count("The ferry") == 6


@pytest.mark.parametrize(
    "anchor", ['<a name="x1"></a>{}', "<a name=x1>{}", '<a id="x1">{}', "<p><a name=x1></p>{}", '<a name="x1">{}</a>']
)
def test_an_anchor_without_address_is_no_link(anchor):
    parts = "".join(f"<div>{anchor.format(f'<h2>KEEP {i}</h2>{PROSE}')}</div>" for i in range(4))
    got = text(f'<h1>안내</h1>{parts}<div><a href="/1">DROP</a></div>')
    assert all(f"KEEP {i}" in got for i in range(4)) and got.count("The ferry") == 4 and "DROP" not in got


def test_an_open_link_does_not_make_links_of_all_that_follows():
    body = "".join(f"<div>{PROSE}</div>" for _ in range(4))
    assert text(f'<h1>안내</h1><p>앞의 <a href="/x">쪽<p>다음 줄</p>{body}').count("The ferry") == 4


@pytest.mark.parametrize(
    "around", ["{}", "<main>{}</main>", '<div id="content">{}</div>', '<div class="thread">{}</div>']
)
@pytest.mark.parametrize("sizes", [(3, 1), (1, 3), (2, 2, 2), (8, 1, 1)])
def test_articles_of_a_page_stay_in_order(around, sizes):
    """A question and its answers, the posts of a day."""
    parts = "".join(f"<article><h2>차례 {i}</h2>{PROSE * n}</article>" for i, n in enumerate(sizes))
    got = text(around.format(parts))
    places = [got.find(f"차례 {i}") for i in range(len(sizes))]
    assert -1 not in places and places == sorted(places) and got.count("The ferry") == sum(sizes)


def test_teasers_of_other_articles_go():
    teaser = '<article class="card"><h3><a href="/{0}">DROP {0}</a></h3><p>어느 마을의 이야기이다. 더 읽어 보자.</p></article>'
    teasers = "".join(teaser.format(i) for i in range(3))
    for page in (
        f"<main><article><h1>안내</h1>{LONG}</article>{teasers}</main>",
        f"<article><h1>안내</h1>{LONG}</article>{teasers}",
    ):
        assert "DROP" not in text(page) and text(page).count("The ferry") == 6
    index = "".join(teaser.format(i) for i in range(9))  # a page of nothing else
    assert text(f"<main>{index}</main>").count("어느 마을의") == 9


def test_an_index_keeps_its_list_and_loses_the_navigation():
    links = "".join(f'<li><a href="/{i}">{i}장 마을의 하루</a></li>' for i in range(30))
    body = f'<div class="related">DROP</div><div role="main"><h1>차례</h1><ul>{links}</ul></div><div id="sidebar">DROP</div>'
    got = text(body)
    assert got.startswith("# 차례\n\n- 0장") and got.count("마을의") == 30 and "DROP" not in got


def test_comments_are_content_where_they_are_most_of_a_page():
    comments = "".join(
        f'<div class="comments-item"><p>{i}번째 KEEP 답. 나는 그 길로 갔다.</p></div>' for i in range(20)
    )
    got = text(f'<h1>물음</h1><p>어느 길로 가는가?</p><div class="comments-list">{comments}</div>')
    assert got.count("KEEP") == 20


@pytest.mark.parametrize(
    "token, says",
    [
        ("sidebar", Named.PLACE), ("left-sidebar", Named.PART), ("sidebarMenu", Named.PART), ("acme-sidebar", Named.PLACE),
        ("no-sidebar", Named.NOTHING), ("sidebar-open", Named.NOTHING), ("sidebar-example", Named.NOTHING),
        ("cookies", Named.TOPIC), ("cookie-banner", Named.PART), ("cookie-consent-given", Named.NOTHING),
        ("tag-login", Named.NOTHING), ("how-to-simulate-a-login", Named.NOTHING), ("sphinxsidebarwrapper", Named.NOTHING),
        ("sphinxsidebar", Named.CERTAIN), ("share-price", Named.NOTHING), ("", Named.NOTHING), ("한글", Named.NOTHING),
    ],
)  # fmt: skip
def test_names(token, says):
    assert named(token) is says
