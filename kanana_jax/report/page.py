"""A page of text, tables, figures and samples as one HTML file that needs nothing else."""

import dataclasses
import html
import os
import pathlib
from collections.abc import Sequence
from typing import Any


@dataclasses.dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str


@dataclasses.dataclass(frozen=True)
class Code:
    """Preformatted text."""

    text: str


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows under columns; numbers are right-aligned and shown with `digits` significant digits."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    caption: str = ""
    digits: int = 4


@dataclasses.dataclass(frozen=True)
class Figure:
    """A plot as SVG (from `plots.py`)."""

    svg: str
    caption: str


@dataclasses.dataclass(frozen=True)
class Sample:
    """A prompt and what a model made of it."""

    lang: str
    prompt: str
    text: str


Block = Text | Code | Table | Figure | Sample


@dataclasses.dataclass(frozen=True)
class Section:
    title: str
    blocks: Sequence[Block]


@dataclasses.dataclass(frozen=True)
class Page:
    """A title, its summary and sections; empty sections are left out."""

    title: str
    lead: str
    sections: Sequence[Section]


_STYLE = """
:root{--ink:#1c2330;--soft:#5b6576;--line:#dfe3ea;--paper:#fff;--tint:#f5f7fa;--accent:#0b63b0}
@media(prefers-color-scheme:dark){:root{--ink:#e4e8ef;--soft:#9aa5b5;--line:#333c4a;--paper:#151a22;--tint:#1d242f;--accent:#7db9f2}
figure svg{background:#fff;border-radius:6px}}
*{box-sizing:border-box}body{margin:0;background:var(--paper);color:var(--ink);
font:16px/1.55 system-ui,-apple-system,"Segoe UI","Noto Sans KR","Noto Sans CJK KR","Apple SD Gothic Neo","Malgun Gothic",sans-serif}
main{max-width:1060px;margin:0 auto;padding:36px 24px 80px}h1{font-size:28px;margin:0 0 6px}
h2{font-size:19px;margin:40px 0 12px;padding-top:14px;border-top:1px solid var(--line)}
.lead{color:var(--soft);margin:0 0 20px}figure{margin:14px 0}figure svg{width:100%;height:auto;display:block}
figcaption,caption{color:var(--soft);font-size:14px;text-align:left;caption-side:bottom;padding-top:6px}
.scroll{overflow-x:auto}table{border-collapse:collapse;font-size:14px;margin:10px 0;min-width:40%}
th,td{padding:5px 12px 5px 0;border-bottom:1px solid var(--line);text-align:left;vertical-align:top}
th{font-weight:600;color:var(--soft)}td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}
pre{background:var(--tint);padding:12px 14px;overflow-x:auto;border-radius:6px;font-size:13px;white-space:pre-wrap;overflow-wrap:anywhere}
.sample{background:var(--tint);border-left:3px solid var(--accent);padding:10px 14px;margin:10px 0;border-radius:0 6px 6px 0;white-space:pre-wrap}
.sample b{font-weight:600}.sample small{display:block;color:var(--soft)}
@media print{h2{break-after:avoid}figure,table,.sample{break-inside:avoid}}
"""


def render(page: Page) -> str:
    """The whole page as HTML; everything that comes from outside is escaped."""
    body = "\n".join(
        f"<section><h2>{_text(s.title)}</h2>\n" + "\n".join(_block(b) for b in s.blocks) + "</section>"
        for s in page.sections
        if s.blocks
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{_text(page.title)}</title><style>{_STYLE}</style></head>\n"
        f'<body><main><h1>{_text(page.title)}</h1>\n<p class="lead">{_text(page.lead)}</p>\n{body}\n</main></body></html>\n'
    )


def write(page: Page, path: pathlib.Path) -> pathlib.Path:
    """Writes the page whole or not at all."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.partial")
    temporary.write_text(render(page), encoding="utf-8")
    os.replace(temporary, path)
    return path


def _text(value: Any) -> str:
    return html.escape(str(value))


def _block(block: Block) -> str:
    if isinstance(block, Text):
        return f"<p>{_text(block.text)}</p>"
    if isinstance(block, Code):
        return f"<pre>{_text(block.text)}</pre>"
    if isinstance(block, Figure):
        return f"<figure>{block.svg}<figcaption>{_text(block.caption)}</figcaption></figure>"
    if isinstance(block, Sample):
        return (
            f'<div class="sample" lang="{_text(block.lang)}"><small>{_text(block.lang)}</small>'
            f"<b>{_text(block.prompt)}</b>{_text(block.text)}</div>"
        )
    return _table(block)


def _table(table: Table) -> str:
    numeric = [
        any(_is_number(row[i]) for row in table.rows)
        and all(_is_number(row[i]) or row[i] in (None, "") for row in table.rows)
        for i in range(len(table.columns))
    ]

    def cell(tag: str, i: int, text: str) -> str:
        return f'<{tag} class="n">{text}</{tag}>' if numeric[i] else f"<{tag}>{text}</{tag}>"

    head = "".join(cell("th", i, _text(c)) for i, c in enumerate(table.columns))
    rows = "".join(
        "<tr>" + "".join(cell("td", i, _text(_shown(v, table.digits))) for i, v in enumerate(row)) + "</tr>"
        for row in table.rows
    )
    caption = f"<caption>{_text(table.caption)}</caption>" if table.caption else ""
    return f'<div class="scroll"><table>{caption}<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _shown(value: Any, digits: int) -> str:
    if value is None:
        return "–"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, float):
        if value and (abs(value) >= 1e6 or abs(value) < 1e-4):
            return f"{value:.3g}"
        return f"{value:,.0f}" if abs(value) >= 10**digits else f"{value:.{digits}g}"
    return str(value)
