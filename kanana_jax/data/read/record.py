"""One document: a record, and how it is made of a JSON value.

A record is `{"id": str, "text": str, "source": str, "lang": str?, "url": str?, "meta": {…}?}`; further
fields of an input move into `meta`. A conversation has `messages` (and `tools`) instead of a text; its record has both,
the text being its turns, one below the other, so that filters, look-ups and held-out shares work on it as on any other.
A value that is no document is a `Broken`.
"""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from kanana_jax.data.extract.markup import Broken

__all__ = ["Broken", "Fields", "Line", "Record", "normalise"]

Record = dict[str, Any]
FIELDS = ("id", "text", "source", "lang", "url", "meta")
CONVERSATION = ("messages", "tools")


@dataclasses.dataclass(frozen=True)
class Fields:
    """How records are made of JSON objects; `root` is what ids leave out of file names."""

    text_field: str
    source: str
    lang: str | None
    root: str

    def record(self, where: str, raw: Any) -> "Record | Broken":
        try:
            if isinstance(raw, bytes):
                raw = json.loads(raw.decode("utf-8"))
        except (ValueError, RecursionError) as error:  # bad UTF-8, bad JSON, a number of 5,000 digits
            return Broken(where, f"not JSON in UTF-8 ({str(error)[:80]})")
        id = where.removeprefix(self.root)
        try:
            return normalise(raw, text_field=self.text_field, source=self.source, lang=self.lang, default_id=id)
        except ValueError as error:
            return Broken(where, str(error))


@dataclasses.dataclass(frozen=True)
class Line:
    """A line of JSON that another process may parse: cheaper to send than its record."""

    where: str
    data: bytes
    fields: Fields

    def parse(self) -> "Record | Broken":
        return self.fields.record(self.where, self.data)


def normalise(raw: Any, *, text_field: str, source: str, lang: str | None, default_id: str) -> Record:
    """A record from a JSON value.

    Raises:
      ValueError: not an object; its text is missing, empty or not text; or messages that are no conversation.
    """
    if not isinstance(raw, dict):
        raise ValueError("not a JSON object")
    messages = raw.get("messages")
    text = raw.get(text_field) if messages is None else _turns(messages)
    if not isinstance(text, str):
        raise ValueError(f"field '{text_field}' is missing or not text")
    if not text.strip():
        raise ValueError(f"field '{text_field}' is empty")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError("text holds lone surrogates") from error
    record: Record = {
        "id": default_id if raw.get("id") in (None, "") else _plain(str(raw["id"])),
        "text": text,
        "source": _plain(str(raw.get("source") or source)),
    }
    if lang or raw.get("lang"):
        record["lang"] = lang or _plain(str(raw["lang"]))
    if messages is not None:
        record |= {key: _plain(raw[key]) for key in CONVERSATION if key in raw}
    if raw.get("url"):
        record["url"] = _plain(str(raw["url"]))
    meta = dict(raw["meta"]) if isinstance(raw.get("meta"), dict) else {}
    meta |= {k: v for k, v in raw.items() if k not in (*FIELDS, *record, text_field)}
    if meta:
        record["meta"] = _plain(meta)
    return record


def _turns(messages: Any) -> str:
    """The text of a conversation.

    Raises:
      ValueError: not a list of `{"role": str, "content": str}`.
    """
    if not isinstance(messages, list) or not messages:
        raise ValueError("'messages' is not a list of turns")
    for number, message in enumerate(messages, 1):
        for key in ("role", "content"):
            if not isinstance(message, Mapping) or not isinstance(message.get(key), str):
                raise ValueError(f"turn {number} of 'messages' has no '{key}', or it is not text")
    return "\n\n".join(message["content"] for message in messages)


def _plain(value: Any) -> Any:
    """A value as JSON in UTF-8 can hold it: dates and the like become text, lone surrogates `?`."""
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", "replace").decode()
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, Mapping):
        return {_plain(str(key)): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
