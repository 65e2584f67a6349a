"""Documents in the forms that people publish, converted into text; each result reports what was lost or repaired.

    extract(pathlib.Path("paper.tar.gz").read_bytes(), "latex").text

Every format is a module with `convert(data, name) -> Extracted`. All of them are pure functions of
bytes, with limits on bytes, nodes and depth but none on time, so that the result is the same anywhere.
"""

import importlib

from kanana_jax.data.extract.markup import Extracted
from kanana_jax.errors import ConfigError, nearest

__all__ = ["FORMATS", "MAX_BYTES", "Extracted", "extract", "format_of"]

MAX_BYTES = 64 << 20
# Format → endings of file names. `aozora` and `text` have none of their own: `.txt` says too little.
FORMATS: dict[str, tuple[str, ...]] = {
    "html": (".html", ".htm", ".xhtml"),
    "wikitext": (".wiki", ".wikitext", ".mediawiki"),
    "latex": (".tex", ".ltx", ".tex.gz", ".tar.gz", ".tgz", ".zip"),
    "markdown": (".md", ".markdown"),
    "mdx": (".mdx",),
    "rst": (".rst", ".rest"),
    "po": (".po", ".pot"),
    "ipynb": (".ipynb",),
    "pdf": (".pdf",),
    "docx": (".docx",),
    "hwpx": (".hwpx",),
    "hwp": (".hwp",),
    "aozora": (),
    "text": (),
}
_MODULES = {"po": "gettext", "ipynb": "notebook", "text": "plain"}
# A text in which more than this share of the characters had to go is not text.
_MAX_LOST = 0.1


def format_of(name: str) -> str | None:
    """The format that a file's name implies, or None."""
    lower = name.lower()
    found = [(len(end), form) for form, ends in FORMATS.items() for end in ends if lower.endswith(end)]
    return max(found)[1] if found else None


def extract(data: bytes, format: str, name: str = "") -> Extracted:
    """The text of a document.

    Args:
      data: the file, as it is: bytes in any encoding, archives for LaTeX projects.
      format: a key of `FORMATS`.
      name: the file's name or the page's title, where the format can use it.

    Raises:
      ConfigError: no such format.
      UserError: the library for this format is not installed.
      ValueError: the document cannot be read: too large, truncated, or not what its name says.
    """
    if format not in FORMATS:
        raise ConfigError(f"format '{format}' cannot be read: {nearest(format, list(FORMATS))}")
    if len(data) > MAX_BYTES:
        raise ValueError(f"document has {len(data)} bytes, the limit is {MAX_BYTES}")
    module = importlib.import_module(f"{__name__}.{_MODULES.get(format, format)}")
    result: Extracted = module.convert(data, name)
    lost = sum(n for key in ("invisible_removed", "undecodable") if isinstance(n := result.report.get(key), int))
    if lost > _MAX_LOST * (len(result.text) + lost) and lost > 20:
        raise ValueError("document is binary, not text")
    return result
