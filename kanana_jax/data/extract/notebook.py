"""Jupyter notebooks: text cells and code cells in order; outputs, licences and buttons go."""

import json
import re
from typing import Any

from kanana_jax.data.extract import encoding, markdown, markup
from kanana_jax.data.extract.markup import Extracted, Report, finish

_LICENCE = re.compile(
    r"Licensed under the (?:Apache|MIT|BSD)|you may not use this file except in compliance|SPDX-License-Identifier|"
    r"Permission is hereby granted, free of charge",
    re.IGNORECASE,
)
_COPYRIGHT_LINE = re.compile(r"^[#\s*>]{0,10}(?:copyright|©|\(c\)).{0,200}$", re.IGNORECASE)
_BUTTON_TABLE = re.compile(r"<table[^<>]{0,200}(?:notebook-buttons|tfo-|colab)[^<>]{0,200}>", re.IGNORECASE)
_BUTTON = re.compile(r"<a[^<>]{0,500}(?:colab\.research|mybinder|kaggle\.com)[^<>]{0,500}>", re.IGNORECASE)
_LANGUAGE = re.compile(r"[\w+#-]{1,20}")


def convert(data: bytes, name: str = "") -> Extracted:
    """The text and code of a notebook.

    Raises:
      ValueError: not a notebook.
    """
    report = Report()
    try:
        notebook = json.loads(encoding.decode(data, report))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not a notebook: {str(error)[:80]}") from error
    if not isinstance(notebook, dict):
        raise ValueError("not a notebook: no JSON object")
    sheets = notebook.get("worksheets")  # version 3 and before
    holders = sheets if isinstance(sheets, list) else [notebook]
    cells = [c for h in holders if isinstance(h, dict) for c in _list(h.get("cells")) if isinstance(c, dict)]
    if not cells and "cells" not in notebook:
        raise ValueError("not a notebook: no cells")
    language = _language(notebook)
    parts = [part for cell in cells if (part := _cell(cell, language, report))]
    text = encoding.clean("\n\n".join(parts), report)
    return finish(text, markdown.first_heading(text), report)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _language(notebook: dict[str, Any]) -> str:
    metadata = notebook.get("metadata")
    for key, field in (("language_info", "name"), ("kernelspec", "language")):
        info = metadata.get(key) if isinstance(metadata, dict) else None
        name = info.get(field) if isinstance(info, dict) else None
        if isinstance(name, str) and _LANGUAGE.fullmatch(name):
            return name.lower()
    return "python"


def _cell(cell: dict[str, Any], language: str, report: Report) -> str:
    source = cell.get("source", cell.get("input", ""))
    source = "".join(s for s in source if isinstance(s, str)) if isinstance(source, list) else source
    if not isinstance(source, str) or not source.strip():
        return ""
    source = encoding.clean(source, report)
    report.count("outputs_dropped", len(_list(cell.get("outputs"))))
    if _LICENCE.search(source[:3000]):
        report.count("licence_cells_dropped")
        return ""
    kind = cell.get("cell_type")
    if kind == "code":
        return markup.fenced(source, language)
    if kind == "heading":
        level = cell.get("level")
        return "#" * (level if isinstance(level, int) and 0 < level < 7 else 1) + " " + source.strip()
    if kind != "markdown":
        report.count("raw_cells_dropped")
        return ""
    for opener, closer in ((_BUTTON_TABLE, "</table>"), (_BUTTON, "</a>")):
        source, buttons = markup.without(source, opener, closer)
        report.count("buttons_dropped", buttons)
    if _COPYRIGHT_LINE.match(source.strip()) and "\n" not in source.strip():
        report.count("licence_cells_dropped")
        return ""
    return markdown.clean(source, report).strip("\n")
