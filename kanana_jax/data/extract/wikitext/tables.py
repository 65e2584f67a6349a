"""Converts wikitext tables `{| … |}` to pipe tables."""

import re

from kanana_jax.data.extract import markup
from kanana_jax.data.extract.markup import Cell

_SPAN = re.compile(r"(col|row)span\s?=\s?[\"']?\s?(\d{1,4})", re.IGNORECASE)


def render_table(source: str, nested: bool = False) -> str:
    """The content of a table as a pipe table below its caption; a nested table as running text."""
    rows: list[list[Cell]] = [[]]
    caption = ""
    open_cell: list[str] | None = None  # attributes and text of the open cell

    def close() -> None:
        nonlocal open_cell
        if open_cell is not None:
            spans = {kind.lower(): int(n) for kind, n in _SPAN.findall(open_cell[0])}
            rows[-1].append(Cell(_cell_text(open_cell[1:]), spans.get("col", 1), spans.get("row", 1)))
        open_cell = None

    lines = source.split("\n")
    for line in lines[1:]:  # the first line contains the table's attributes
        bare = line.strip()
        if bare.startswith("|-"):
            close()
            rows.append([])
        elif bare.startswith("|+"):
            close()
            caption = _split_attributes(bare[2:])[1].strip()
        elif bare.startswith(("|", "!")):
            close()
            bare = bare[1:] if bare.startswith("||") else bare
            inside = bare[1:].replace("!!", "||") if bare[0] == "!" else bare[1:]
            for cell in inside.split("||"):
                close()
                open_cell = list(_split_attributes(cell))
        elif open_cell is not None:
            open_cell.append(bare)
    close()
    if nested:
        return "; ".join(" ".join(cell.text for cell in row if cell.text) for row in rows if row)
    body = markup.table(rows)
    return f"{caption}\n\n{body}" if caption and body else body


def _split_attributes(cell: str) -> tuple[str, str]:
    before, pipe, after = cell.partition("|")
    if pipe and "=" in before and len(before) < 1000 and not any(c in before for c in "[]{}\x01"):
        return before, after
    return "", cell


def _cell_text(lines: list[str]) -> str:
    # Lists inside a cell become running text.
    return " ".join(line.lstrip("*#:; ") for line in lines if line)
