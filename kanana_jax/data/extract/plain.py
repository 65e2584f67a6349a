"""Plain text in any encoding."""

from kanana_jax.data.extract import encoding
from kanana_jax.data.extract.markup import Extracted, Report, finish


def convert(data: bytes, name: str = "") -> Extracted:
    """The decoded, cleaned text."""
    report = Report()
    return finish(encoding.decode(data, report), None, report)
