"""LaTeX projects to Markdown: a folder, a .tar.gz or .zip as arXiv provides them, or one file.

Included files are inserted in place, macros of the preamble are expanded, comments and the preamble are removed, and
formulas are kept as written.
"""

import posixpath
import re
from collections.abc import Mapping

from kanana_jax.data.extract import archives, encoding
from kanana_jax.data.extract.latex import lexer
from kanana_jax.data.extract.latex.lexer import name_of
from kanana_jax.data.extract.latex.macros import Gullet
from kanana_jax.data.extract.latex.render import Renderer
from kanana_jax.data.extract.markup import Extracted, Report, finish

_SOURCES = (".tex", ".ltx", ".latex", ".sty", ".bbl", ".tikz", ".def", ".inc", ".txt")
_DOCUMENT_CLASS = re.compile(r"^[^%\n]{0,200}\\document(?:class|style)", re.MULTILINE)
_INCLUDED = re.compile(r"\\(?:input|include|subfile)[ \t]*\{([^{}\n]{1,200})\}")


def convert(data: bytes, name: str = "") -> Extracted:
    """The text of a source file or of an archive of sources.

    Raises:
      ValueError: the archive is broken or contains no LaTeX.
    """
    report = Report()
    if not archives.is_archive(data):
        return project({name or "main.tex": data}, report)
    files = archives.unpack(data, report, wanted=lambda member: member.lower().endswith(_SOURCES))
    if list(files) == [""]:  # a single gzipped file, as arXiv provides papers without figures
        files = {"main.tex": files[""]}
    return project(files, report)


def project(files: Mapping[str, bytes], report: Report, main: str | None = None) -> Extracted:
    """The text of a project.

    Args:
      files: path → content.
      main: the main file; by default found by its document class.

    Raises:
      ValueError: there is no LaTeX source among the files.
    """
    sources = {posixpath.normpath(path): encoding.decode(data, report) for path, data in files.items()}
    main = main or main_file(sources)
    if main is None:
        raise ValueError("not LaTeX source: no .tex file with \\documentclass or text")
    finder = _Finder(sources, main, report)
    gullet = Gullet(finder, report)
    tokens = gullet.run(main, sources[main])
    preamble, body = _split(tokens)
    title = _title(preamble + body)
    citations = _citations([text for path, text in sources.items() if path.endswith(".bbl")] or [sources[main]])
    renderer = Renderer(body, gullet.theorems, citations, report, _floats(preamble))
    text = renderer.render()
    title = renderer.plain(title) if title else None
    if title:
        text = f"# {title}\n\n{text}"
    return finish(text, title, report)


def main_file(sources: Mapping[str, str]) -> str | None:
    """The main file of a project: a file with a document class that no other includes; of several, the likeliest.

    Preferred are files with `\\begin{document}`, a usual name such as `main`, the least depth, and the greatest length.
    """
    candidates = [path for path, text in sources.items() if _DOCUMENT_CLASS.search(text)]
    if not candidates:
        candidates = [p for p in sources if p.lower().endswith((".tex", ".ltx", ".latex")) or len(sources) == 1]
    included = _included(sources)

    def rank(path: str) -> tuple[bool, bool, bool, int, str]:
        stem = posixpath.splitext(path)[0]
        known = posixpath.basename(stem).lower() in ("main", "ms", "paper", "article", "thesis", "root", "manuscript")
        depth = path.count("/")
        begins = "\\begin{document}" in sources[path] or not _DOCUMENT_CLASS.search(sources[path])
        return (stem in included, not begins, not known, depth * 10**9 - len(sources[path]), path)

    return min(candidates, key=rank, default=None)


def documents(files: Mapping[str, bytes]) -> list[str]:
    """The documents in a folder: LaTeX sources that no other source includes."""
    sources = {path: data.decode("utf-8", "replace") for path, data in files.items()}
    included = _included(sources)
    return [
        path
        for path in sources
        if path.lower().endswith((".tex", ".ltx", ".latex")) and posixpath.splitext(path)[0] not in included
    ]


def _included(sources: Mapping[str, str]) -> set[str]:
    return {
        posixpath.splitext(posixpath.normpath(posixpath.join(folder, name.strip())))[0]
        for path, text in sources.items()
        for name in _INCLUDED.findall(text)
        for folder in ("", posixpath.dirname(path))
    }


class _Finder:
    """Finds the files that a source includes, relative to the folder of the main file."""

    def __init__(self, sources: Mapping[str, str], main: str, report: Report):
        self.sources, self.report = sources, report
        self.folder = posixpath.dirname(main)
        self.by_lower = {path.lower(): path for path in sources}

    def __call__(self, name: str, kind: str) -> tuple[str, str] | None:
        name = name.strip().strip('"')
        for folder in dict.fromkeys((self.folder, "")):
            for suffix in ("", f".{kind}"):
                path = posixpath.normpath(posixpath.join(folder, name + suffix))
                found = path if path in self.sources else self.by_lower.get(path.lower())
                if found is not None and (kind == "tex" or suffix):
                    return found, self._body(self.sources[found], kind)
        if kind == "tex":  # missing packages are normal: most are not part of a project
            self.report.name("missing_files", name)
        return None

    @staticmethod
    def _body(text: str, kind: str) -> str:
        """The body of a subfile that can also be compiled on its own."""
        if kind == "tex" and _DOCUMENT_CLASS.search(text) and "\\begin{document}" in text:
            text = text.partition("\\begin{document}")[2].partition("\\end{document}")[0]
        return text


def _split(tokens: list[str]) -> tuple[list[str], list[str]]:
    """Splits preamble and body; a file without `\\begin{document}` is all body."""
    try:
        start = tokens.index("\\begin{document}")
    except ValueError:
        return [], tokens
    end = tokens.index("\\end{document}", start) if "\\end{document}" in tokens[start:] else len(tokens)
    return tokens[:start], tokens[start + 1 : end]


def _floats(preamble: list[str]) -> dict[str, str]:
    """Environment → title of the floats that a preamble defines."""
    found = {}
    for i, token in enumerate(preamble):
        if name_of(token) in ("newfloat", "DeclareFloatingEnvironment"):
            name = re.match(r"(?:\[[^\[\]]{0,300}\])?\s*\{\s*([\w*]{1,40})\s*\}", lexer.join(preamble[i + 1 : i + 40]))
            if name is not None:
                found[name[1]] = name[1].capitalize()
    return found


def _title(tokens: list[str]) -> str:
    for i, token in enumerate(tokens):
        if name_of(token) != "title":
            continue
        depth, parts = 0, []
        for part in tokens[i + 1 : i + 500]:
            if depth:
                parts.append(part)
            depth += (part == "{") - (part == "}")
            if depth == 0 and part == "}":
                # Titles contain acknowledgements and line breaks.
                text = re.sub(r"\\thanks\s*\{[^{}]*\}?", "", lexer.join(parts[:-1]))
                return text.replace("\\\\", " ").strip()
    return ""


def _citations(texts: list[str]) -> dict[str, tuple[str, str]]:
    """Key → (author, year) if the bibliography has natbib labels, else (number or label, "")."""
    found: dict[str, tuple[str, str]] = {}
    for text in texts:
        at = text.find("\\bibitem")
        while at >= 0:
            at += len("\\bibitem")
            label = ""
            entry = text[at : at + 2000].lstrip(" \t\n%")
            if entry.startswith("["):
                depth = 0
                for i, c in enumerate(entry):
                    depth += (c == "{") - (c == "}")
                    if c == "]" and depth <= 0:
                        label, entry = entry[1:i], entry[i + 1 :].lstrip(" \t\n%")
                        break
            key = re.match(r"\{([^{}]{1,200})\}", entry)
            if key is not None:
                found.setdefault(key[1].strip(), _label(label, len(found) + 1))
            at = text.find("\\bibitem", at)
    return found


def _label(label: str, number: int) -> tuple[str, str]:
    label = re.sub(r"\\[A-Za-z]+\s?|[{}]", "", label.replace("~", " ").replace("\\&", "&")).strip()
    natbib = re.match(r"([^()]{1,300})\((\d{4}[a-z]?)\)", label)
    if natbib is not None:
        return " ".join(natbib[1].split()), natbib[2]
    return (label or str(number), "")
