"""One document: a record, and its construction from a JSON value.

`lang` is a tag in any form (`languages.tag`), and in the record its two letters, if ISO 639-1 has them.

A record is `{"id": str, "text": str, "source": str, "lang": str?, "url": str?, "meta": {…}?}`; further
fields of an input move into `meta`. A conversation or a preference pair (`conversations.py`) has its turns instead of a
text; its record has both, the text being the turns, one below the other, so that filters, look-ups and held-out shares
work on it as on any other.
A value that is not a document is a `Broken`, or a `Skipped` if that is legitimate (a crawl's error pages). On request,
a record also knows its place, whatever its id (`[digest, path, number]` under `PLACE`), by which look-ups find its
verdict. The place is only read internally and never written into results.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal, get_args

from kanana_jax import languages
from kanana_jax.data.extract.markup import Broken, Skipped
from kanana_jax.data.read import conversations, jsonl

__all__ = ["FORMS", "Broken", "Fields", "Form", "Line", "Record", "Skipped", "form_of", "normalise"]

Record = dict[str, Any]
FIELDS = ("id", "text", "source", "lang", "url", "meta")
CONVERSATION = conversations.FIELDS
PLACE = "kanana:place"
# Text, a conversation, a preference pair, a prompt alone, or texts that belong together.
Form = Literal["text", "messages", "chosen", "prompt", "anchor"]
FORMS: tuple[Form, ...] = get_args(Form)


def form_of(record: Record) -> Form:
    """The field that determines a record's form; `text` for one without any of the others."""
    return next((field for field in FORMS[1:] if field in record), "text")


@dataclasses.dataclass(frozen=True)
class Fields:
    """Field names by which JSON objects become records.

    Attributes:
      root: the part of file names that ids leave out.
      place: digest and path of the origin, which records then carry with their number in it; None: they carry no place.
    """

    text_field: str
    source: str
    lang: str | None
    root: str
    place: tuple[str, str] | None = None

    def record(self, where: str, raw: Any, number: int) -> "Record | Broken":
        try:
            raw = jsonl.parse(raw) if isinstance(raw, bytes) else conversations.of_table(raw)
        except ValueError as error:
            return Broken(where, f"not JSON in UTF-8 ({str(error)[:80]})")
        id, source = _spelt(where.removeprefix(self.root)), _spelt(self.source)
        try:
            record = normalise(raw, text_field=self.text_field, source=source, lang=self.lang, default_id=id)
        except ValueError as error:
            return Broken(where, str(error))
        return record if self.place is None else {**record, PLACE: [*self.place, number]}


@dataclasses.dataclass(frozen=True)
class Line:
    """A line of JSON for another process to parse, which is cheaper to send than its record; `number` is its place."""

    where: str
    data: bytes
    fields: Fields
    number: int

    def parse(self) -> "Record | Broken":
        return self.fields.record(self.where, self.data, self.number)


def normalise(raw: Any, *, text_field: str, source: str, lang: str | None, default_id: str) -> Record:
    """A record from a JSON value.

    Raises:
      ValueError: not an object; its text is missing, empty or not text; turns that are not a conversation; names that
        are not text; or it is nested deeper than `jsonl.MAX_DEPTH`.
    """
    if not isinstance(raw, dict):
        raise ValueError("not a JSON object")
    found = conversations.conversation(raw, text_field)
    text = raw.get(text_field) if found is None else conversations.text(found)
    if not isinstance(text, str):
        raise ValueError(f"field '{text_field}' is missing or not text")
    if not text.strip():
        raise ValueError(f"field '{text_field}' is empty")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError("text holds lone surrogates") from error
    record: Record = {
        "id": _name(raw, "id") or default_id,
        "text": text,
        "source": _name(raw, "source") or source,
    }
    if own := lang or languages.tag(_name(raw, "lang")):
        record["lang"] = own
    if found is not None:
        record |= {key: _plain(value) for key, value in found.items()}
    if url := _name(raw, "url"):
        record["url"] = url
    meta = dict(raw["meta"]) if isinstance(raw.get("meta"), dict) else {}
    known = (*FIELDS, *record, *conversations.consumed(raw, found), text_field, PLACE)
    meta |= {k: v for k, v in raw.items() if k not in known}
    if meta:
        record["meta"] = _plain(meta)
    return record


def _spelt(name: str) -> str:
    """The part of a path in UTF-8, which a locale with another encoding reads byte by byte."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _name(raw: Mapping[str, Any], key: str) -> str:
    """Id of a document; empty if the field is missing.

    Raises:
      ValueError: a truth value, list or object.
    """
    value = raw.get(key)
    if isinstance(value, (bool, list, tuple, Mapping)):
        raise ValueError(f"field '{key}' is not text")
    return "" if value is None else str(_plain(value))


def _plain(value: Any, depth: int = 0) -> Any:
    """A value that JSON in UTF-8 can represent: dates and the like become text, lone surrogates `?`, NaN null.

    Raises:
      ValueError: nested too deeply.
    """
    if depth > jsonl.MAX_DEPTH:
        raise ValueError(f"nested deeper than {jsonl.MAX_DEPTH}")
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", "replace").decode()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, Mapping):
        return {_plain(str(key)): _plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, depth + 1) for item in value]
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
