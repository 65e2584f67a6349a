"""Text extraction from published document formats; each result reports what was lost or repaired.

    extract(pathlib.Path("paper.tar.gz").read_bytes(), "latex").text

Every format is a module with `convert(data, name) -> Extracted`. Converters are pure functions of bytes, limited in
bytes, nodes and depth but not in time, so that results do not depend on the machine.
"""

import importlib

from kanana_jax.data.extract.markup import Extracted
from kanana_jax.errors import ConfigError, nearest

__all__ = ["FORMATS", "MAX_BYTES", "Extracted", "extract", "format_of"]

MAX_BYTES = 64 << 20
# Format → file name endings. `aozora` and `text` have none, since `.txt` is ambiguous.
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
# If more than this share of the characters had to be removed, the data is not text.
_MAX_LOST = 0.1


def format_of(name: str) -> str | None:
    """The format that a file's name implies, or None."""
    lower = name.lower()
    found = [(len(end), form) for form, ends in FORMATS.items() for end in ends if lower.endswith(end)]
    return max(found)[1] if found else None


def extract(data: bytes, format: str, name: str = "") -> Extracted:
    """Extracts the text of a document.

    Args:
      data: the content of the file: bytes in any encoding; for LaTeX projects also an archive.
      format: a key of `FORMATS`.
      name: the file's name or the page's title, for formats that use it.

    Raises:
      ConfigError: unknown format.
      UserError: the library for this format is not installed.
      ValueError: the document cannot be read: too large, truncated, or of another format.
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
