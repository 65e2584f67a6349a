"""Pages of text, tables, figures and samples as single HTML files without scripts or network access."""

import dataclasses
import html
import math
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from kanana_jax.files import whole_file


@dataclasses.dataclass(frozen=True)
class Text:
    """A paragraph; a warning is highlighted."""

    text: str
    tone: Literal["plain", "warning"] = "plain"


@dataclasses.dataclass(frozen=True)
class Code:
    """Preformatted text."""

    text: str


@dataclasses.dataclass(frozen=True)
class KeyValues:
    """A few figures with their names, in large type."""

    items: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows under columns.

    Attributes:
      rows: a column whose cells are numbers (or None) is right-aligned.
      formats: column → format spec of its numbers (`".3f"`, `",d"`); a column without one gets thousands separators,
        and as many decimals for all its cells as give the largest one `digits` significant digits.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    caption: str = ""
    formats: Mapping[str, str] = dataclasses.field(default_factory=dict)
    digits: int = 4

    def __post_init__(self):
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"table '{self.caption}': a row has {len(row)} cells for {len(self.columns)} columns")


@dataclasses.dataclass(frozen=True)
class Figure:
    """A plot: an `<svg>` element (from `plots.py`), the only content that is not escaped.

    Attributes:
      narrow: the same plot for a phone; "" uses the wide plot, which scrolls sideways there.
    """

    svg: str
    caption: str
    narrow: str = ""


@dataclasses.dataclass(frozen=True)
class Sample:
    """A prompt and a model's continuation; `lang` is the language's code."""

    lang: str
    prompt: str
    text: str


@dataclasses.dataclass(frozen=True)
class Samples:
    """Samples, side by side if there is room."""

    samples: Sequence[Sample]
    caption: str = ""


@dataclasses.dataclass(frozen=True)
class Details:
    """Blocks that are hidden until the reader clicks on the summary."""

    summary: str
    blocks: Sequence["Block"]


@dataclasses.dataclass(frozen=True)
class Excerpt:
    """An excerpt of a document with marked spans `(start, end, reason)`, in order, e.g. of what was cut."""

    text: str
    spans: Sequence[tuple[int, int, str]] = ()
    caption: str = ""


Block = Text | Code | KeyValues | Table | Figure | Samples | Excerpt | Details


@dataclasses.dataclass(frozen=True)
class Section:
    """A heading and its contents."""

    title: str
    blocks: Sequence[Block]


class Chapter(NamedTuple):
    """A section of a run's report that a kind of stage writes from its files.

    Attributes:
      title: the section's heading.
      blocks: maps {stage: folder} to the section's blocks; empty if there is nothing to report.
      first: whether the section directly follows the summary.
    """

    title: str
    blocks: Callable[[dict[str, pathlib.Path]], list[Block]]
    first: bool = False


@dataclasses.dataclass(frozen=True)
class Page:
    """A title, an answer in larger type, a summary and sections; sections without blocks are left out."""

    title: str
    lead: str
    sections: Sequence[Section]
    answer: str = ""


_STYLE = """
:root{color-scheme:light dark;--ink:#1c2331;--soft:#5b6577;--line:#dfe3eb;--paper:#fff;--tint:#f5f7fa;--accent:#0b63b0;
--warn:#fff4e0;--warn-line:#d98a00}
@media screen and (prefers-color-scheme:dark){:root{--ink:#e4e8ef;--soft:#a0aaba;--line:#313a48;--paper:#151a22;
--tint:#1d242f;--accent:#7db9f2;--warn:#3a2f18;--c0:#4aa8e8;--c1:#ff8b3d;--c2:#2fc79a;--c3:#e79cc8;--c4:#f5bd41;
--c5:#9bd8ff;--c6:#98a3b3;--c7:#a99bea}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.55 system-ui,-apple-system,"Segoe UI","Noto Sans KR",
"Noto Sans CJK KR","Apple SD Gothic Neo","Malgun Gothic","Noto Sans CJK JP","Hiragino Sans",sans-serif}
main{max-width:1060px;margin:0 auto;padding:36px 24px 80px}
h1{font-size:28px;line-height:1.25;margin:0 0 6px;overflow-wrap:anywhere}
h2{font-size:20px;margin:44px 0 12px;padding-top:16px;border-top:1px solid var(--line)}
.answer{font-size:19px;line-height:1.45;margin:8px 0 10px;overflow-wrap:anywhere}
.lead{color:var(--soft);margin:0 0 16px;overflow-wrap:anywhere}
nav{display:flex;flex-wrap:wrap;gap:2px 18px;font-size:14px}a{color:var(--accent);text-decoration:none}
a:hover{text-decoration:underline}p{margin:10px 0;max-width:75ch}
.warning{background:var(--warn);border-left:3px solid var(--warn-line);padding:8px 14px;border-radius:0 6px 6px 0}
figure{margin:18px 0 22px}figure svg{width:100%;height:auto;display:block;overflow:visible}
.slim{display:none}figure svg *{stroke-linejoin:round}figure svg text{font-family:inherit}
figcaption{color:var(--soft);font-size:14px;line-height:1.45;text-align:left;padding-top:6px;max-width:90ch}
.scroll{overflow-x:auto;margin:12px 0}figure .scroll{margin:0}table{border-collapse:collapse;font-size:14px;line-height:1.4;min-width:40%}
th,td{padding:5px 11px 5px 0;border-bottom:1px solid var(--line);text-align:left;vertical-align:top}
th{font-weight:600;color:var(--soft);vertical-align:bottom}tbody th{color:inherit;font-weight:400}
.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
dl{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:10px;margin:14px 0}
dl div{background:var(--tint);border-radius:8px;padding:10px 14px}dt{color:var(--soft);font-size:13px}
dd{margin:0;font-size:20px;font-variant-numeric:tabular-nums;overflow-wrap:anywhere}
pre{background:var(--tint);padding:12px 14px;border-radius:6px;font-size:13px;line-height:1.45;white-space:pre-wrap;
overflow-wrap:anywhere;margin:10px 0}
details{margin:12px 0}summary{cursor:pointer;color:var(--accent);font-size:14px}
.samples{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,400px),1fr));gap:12px;margin:12px 0}
.sample{background:var(--tint);border-left:3px solid var(--accent);padding:10px 14px;border-radius:0 6px 6px 0;
white-space:pre-wrap;overflow-wrap:anywhere;font-size:15px}
mark{background:var(--warn);color:inherit;border-bottom:2px solid var(--warn-line)}.sample{margin:10px 0}.samples .sample{margin:0}
.sample b{font-weight:650}.sample small{display:block;color:var(--soft)}
.scroll,figure{scrollbar-width:thin}
@media screen and (max-width:640px){main{padding:20px 14px 60px}
nav{flex-wrap:nowrap;overflow-x:auto;white-space:nowrap}h2{margin-top:22px}table{font-size:13px}th,td{padding-right:7px}figure{overflow-x:auto}figure svg{min-width:800px}
.broad{display:none}.slim{display:block}figure .slim svg{min-width:0}
figure:has(svg):not(:has(.slim))::before,.wide::before{content:"wider than the screen: swipe sideways →";display:block;position:sticky;left:0;
color:var(--soft);font-size:12px;padding-bottom:4px}
figcaption{position:sticky;left:0;max-width:calc(100vw - 28px)}pre{overflow-x:auto;white-space:pre;overflow-wrap:normal}}
@media print{:root{color-scheme:light}body{font-size:11pt}main{max-width:none;padding:0}nav{display:none}
h2{break-after:avoid;margin-top:24px}figure,tr,dl,.sample{break-inside:avoid}.scroll{overflow:visible}
*{print-color-adjust:exact;-webkit-print-color-adjust:exact}}
"""


def render(page: Page) -> str:
    """The whole page as HTML; all text is escaped."""
    sections = [s for s in page.sections if s.blocks]
    links = "".join(f'<a href="#s{i}">{_text(s.title)}</a>' for i, s in enumerate(sections))
    body = "\n".join(
        f'<section id="s{i}"><h2>{_text(s.title)}</h2>\n{_blocks(s.blocks)}\n</section>' for i, s in enumerate(sections)
    )
    answer = f'<p class="answer">{_text(page.answer)}</p>\n' if page.answer else ""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{_text(page.title)}</title><style>{_STYLE}</style></head>\n"
        f'<body><main><h1>{_text(page.title)}</h1>\n{answer}<p class="lead">{_text(page.lead)}</p>\n'
        f"<nav>{links}</nav>\n{body}\n</main></body></html>\n"
    )


def write(page: Page, path: pathlib.Path) -> pathlib.Path:
    """Writes the page atomically, creating its folder, and returns `path`."""
    with whole_file(path) as temporary:
        # Generated text that ends within a character can contain a lone surrogate, which UTF-8 cannot encode.
        temporary.write_text(render(page), encoding="utf-8", errors="replace", newline="\n")
    return path


def _text(value: Any) -> str:
    return html.escape(str(value).replace("\0", "\ufffd"))


def _blocks(blocks: Sequence[Block]) -> str:
    return "\n".join(_block(block) for block in blocks)


def _block(block: Block) -> str:
    if isinstance(block, Text):
        return f'<p class="{block.tone}">{_text(block.text)}</p>'
    if isinstance(block, Code):
        return f"<pre>{_text(block.text)}</pre>"
    if isinstance(block, KeyValues):
        pairs = (f"<div><dt>{_text(k)}</dt><dd>{_text(_alone(v))}</dd></div>" for k, v in block.items.items())
        return f"<dl>{''.join(pairs)}</dl>"
    if isinstance(block, Table):
        return _table(block)
    if isinstance(block, Figure):
        name = f'<svg role="img" aria-label="{_text(block.caption)}"'
        drawn, slim = (svg.replace("<svg", name, 1) for svg in (block.svg, block.narrow))
        if slim:
            drawn = f'<div class="broad">{drawn}</div><div class="slim">{slim}</div>'
        return f"<figure>{drawn}<figcaption>{_text(block.caption)}</figcaption></figure>"
    if isinstance(block, Samples):
        caption = f"<p>{_text(block.caption)}</p>" if block.caption else ""
        return f'{caption}<div class="samples">{"".join(map(_sample, block.samples))}</div>'
    if isinstance(block, Excerpt):
        return _excerpt(block)
    return f"<details><summary>{_text(block.summary)}</summary>\n{_blocks(block.blocks)}</details>"


def _excerpt(excerpt: Excerpt) -> str:
    pieces, at = [], 0
    for start, end, why in excerpt.spans:
        if start < at:
            continue
        pieces.append(_text(excerpt.text[at:start]))
        pieces.append(f'<mark title="{_text(why)}">{_text(excerpt.text[start:end])}</mark>')
        at = end
    pieces.append(_text(excerpt.text[at:]))
    return f'<div class="sample"><small>{_text(excerpt.caption)}</small>{"".join(pieces)}</div>'


def _sample(sample: Sample) -> str:
    lang = _text(sample.lang)
    return (
        f'<div class="sample" lang="{lang}"><small>{lang}</small>'
        f"<b>{_text(sample.prompt)}</b>{_text(sample.text)}</div>"
    )


def _table(table: Table) -> str:
    shown, numeric = [], []
    for i, name in enumerate(table.columns):
        cells = [row[i] for row in table.rows]
        numeric.append(any(map(_is_number, cells)) and all(_is_number(c) or c is None for c in cells))
        shown.append(_column(cells, table.formats.get(name, ""), table.digits))

    def cell(tag: str, i: int, text: str) -> str:
        align = ' class="n"' if numeric[i] else ""
        return f"<{tag}{align}>{_text(text)}</{tag}>"

    head = "".join(cell("th", i, name) for i, name in enumerate(table.columns))
    rows = "".join(f"<tr>{''.join(cell('td', i, c) for i, c in enumerate(row))}</tr>" for row in zip(*shown))
    wide = " wide" if len(table.columns) > 6 else ""
    html = f'<div class="scroll{wide}"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
    # Not <caption>: it is as wide as the table and would be cut off on a narrow screen.
    return f"<figure>{html}<figcaption>{_text(table.caption)}</figcaption></figure>" if table.caption else html


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _column(cells: Sequence[Any], spec: str, digits: int) -> list[str]:
    sizes = [abs(c) for c in cells if isinstance(c, float) and math.isfinite(c) and c]
    if not spec and sizes and min(sizes) >= 1e-4 and max(sizes) < 1e7:
        decimals = max(0, digits - 1 - math.floor(math.log10(max(sizes))))
        spec = f",.{decimals}f"
    return [_shown(c, spec, digits) for c in cells]


def _shown(value: Any, spec: str, digits: int) -> str:
    if value is None:
        return "–"
    if not _is_number(value):
        return str(value)
    if spec and not (isinstance(value, int) and spec.endswith("f")):
        return format(value, spec)
    if isinstance(value, int):
        return f"{value:,}"
    return format(value, spec) if spec else f"{value:.{digits}g}"


def _alone(value: Any) -> str:
    return _column([value], "", 4)[0]
