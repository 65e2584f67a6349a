"""reStructuredText's tables: simple, grid, list and CSV tables; columns are those of a monospaced font."""

import csv
import re
import unicodedata
from collections.abc import Callable

from kanana_jax.data.extract.markup import Cell

Inline = Callable[[str], str]
SIMPLE = re.compile(r"[ \t]*=+(?:[ \t]+=+)+[ \t]*$")


def simple(lines: list[str], at: int, inline: Inline) -> tuple[list[list[Cell]], int]:
    """The cells of a simple table (ruled by `====  ====`) at line `at`, and the index after it."""
    starts = [m.start() for m in re.finditer(r"(?<!=)=", lines[at])]
    end = at + 1
    rules = 1
    while end < len(lines) and rules < 3:
        if SIMPLE.match(lines[end]):
            rules += 1
            if rules == 3 or end + 1 >= len(lines) or not lines[end + 1].strip():
                break
        elif not lines[end].strip() and rules == 2 and not lines[end - 1].strip():
            break
        end += 1
    rows: list[list[Cell]] = []
    for line in lines[at + 1 : end]:
        if SIMPLE.match(line) or not line.strip(" -"):
            continue
        line = _wide(line)
        cells = [line[a:b].replace("\0", "").strip() for a, b in zip(starts, [*starts[1:], None])]
        if rows and not cells[0]:  # continuation of the previous row
            rows[-1] = [Cell(f"{old.text} {inline(new)}".strip()) for old, new in zip(rows[-1], cells)]
        else:
            rows.append([Cell(inline(cell)) for cell in cells])
    return rows, end + 1


def grid(lines: list[str], at: int, inline: Inline) -> tuple[list[list[Cell]], int]:
    """The cells of a grid table (drawn with `+---+`) at line `at`, and the index after it."""
    end = at
    rows: list[list[Cell]] = []
    fresh = True
    while end < len(lines) and lines[end].lstrip().startswith(("+", "|")):
        line = lines[end].strip()
        if line.startswith("+"):
            fresh = True
        else:
            cells = [inline(cell.strip()) if cell.strip("+-= ") else "" for cell in line.strip("|").split("|")]
            if fresh or len(cells) != len(rows[-1]):
                rows.append([Cell(cell) for cell in cells])
            else:
                rows[-1] = [Cell(f"{old.text} {new}".strip()) for old, new in zip(rows[-1], cells)]
            fresh = False
        end += 1
    return rows, end


def _wide(line: str) -> str:
    """Adds a NUL after each wide character, so that indices are columns of a monospaced font."""
    if line.isascii():
        return line
    return "".join(f"{c}\0" if unicodedata.east_asian_width(c) in "WF" else c for c in line)


def listed(lines: list[str], inline: Inline) -> list[list[Cell]]:
    rows: list[list[list[str]]] = []
    for line in lines:
        text = line.strip()
        if text.startswith("* -"):
            rows.append([[text[3:].strip()]])
        elif text.startswith("- ") and rows:
            rows[-1].append([text[2:].strip()])
        elif text == "-" and rows:
            rows[-1].append([""])
        elif text and rows:
            rows[-1][-1].append(text)
    return [[Cell(inline(" ".join(cell))) for cell in row] for row in rows]


def comma_separated(lines: list[str], inline: Inline) -> list[list[Cell]]:
    try:
        return [
            [Cell(inline(cell.strip())) for cell in row]
            for row in csv.reader((line.strip() for line in lines), skipinitialspace=True)
            if row
        ]
    except csv.Error:
        return [[Cell(line.strip())] for line in lines if line.strip()]
