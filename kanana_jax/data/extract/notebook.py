"""Jupyter notebooks: text cells, code cells and Markdown outputs in order, without other outputs, licences, buttons."""

import json
import re
from typing import Any

from kanana_jax.data.extract import encoding, markdown, markup, rst
from kanana_jax.data.extract.markup import Extracted, Report, finish

_LICENCE = re.compile(
    r"Licensed under the (?:Apache|MIT|BSD)|you may not use this file except in compliance|SPDX-License-Identifier|"
    r"Permission is hereby granted, free of charge",
    re.IGNORECASE,
)
_COPYRIGHT_LINE = re.compile(r"^[#\s*>]{0,10}(?:copyright|©|\(c\)).{0,200}$", re.IGNORECASE)
_BUTTON_TABLE = re.compile(r"<table[^<>]{0,200}(?:notebook-buttons|tfo-|colab)[^<>]{0,200}>", re.IGNORECASE)
_BUTTON = re.compile(r"<a[^<>]{0,500}(?:colab\.research|mybinder|kaggle\.com)[^<>]{0,500}>", re.IGNORECASE)
# MIME types of raw cells that are Markdown or reStructuredText.
_RAW_MARKDOWN = markup.words("text/markdown text/x-markdown")
_RAW_RST = markup.words("text/restructuredtext text/x-rst")
# Longer outputs are data, not text.
_MAX_OUTPUT = 100_000
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
    sheets = notebook.get("worksheets")  # format version 3 and earlier
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


def _text(value: Any) -> str:
    """A text, which may be stored as a list of lines."""
    value = "".join(s for s in value if isinstance(s, str)) if isinstance(value, list) else value
    return value if isinstance(value, str) else ""


def _cell(cell: dict[str, Any], language: str, report: Report) -> str:
    source = encoding.clean(_text(cell.get("source", cell.get("input", ""))), report)
    outputs = _list(cell.get("outputs"))
    shown = [text for output in outputs if (text := _shown(output, report))]
    report.count("outputs_dropped", len(outputs) - len(shown))
    return "\n\n".join(filter(None, [_source(cell, source, language, report), *shown]))


def _shown(output: Any, report: Report) -> str:
    """An output's text if it is Markdown, which programs use to display prose; otherwise ""."""
    data = output.get("data") if isinstance(output, dict) else None
    text = _text(data.get("text/markdown") if isinstance(data, dict) else None)
    return markdown.clean(encoding.clean(text, report), report).strip("\n") if len(text) <= _MAX_OUTPUT else ""


def _source(cell: dict[str, Any], source: str, language: str, report: Report) -> str:
    if not source.strip():
        return ""
    if _LICENCE.search(source[:3000]):
        report.count("licence_cells_dropped")
        return ""
    kind = cell.get("cell_type")
    if kind == "code":
        return markup.fenced(source, language)
    if kind == "heading":
        level = cell.get("level")
        return "#" * (level if isinstance(level, int) and 0 < level < 7 else 1) + " " + source.strip()
    metadata = cell.get("metadata")
    mime = metadata.get("format", metadata.get("raw_mimetype")) if isinstance(metadata, dict) else None
    if kind == "raw" and isinstance(mime, str) and mime in _RAW_RST:
        return rst.clean(source, report)
    if kind != "markdown" and not (kind == "raw" and isinstance(mime, str) and mime in _RAW_MARKDOWN):
        report.count("raw_cells_dropped")
        return ""
    for opener, closer in ((_BUTTON_TABLE, "</table>"), (_BUTTON, "</a>")):
        source, buttons = markup.without(source, opener, closer)
        report.count("buttons_dropped", buttons)
    if _COPYRIGHT_LINE.match(source.strip()) and "\n" not in source.strip():
        report.count("licence_cells_dropped")
        return ""
    return markdown.clean(source, report).strip("\n")
