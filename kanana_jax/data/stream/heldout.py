"""Held-out documents as evaluation rows, and how many bytes of text they stand for."""

import dataclasses
import json
from collections.abc import Mapping

from kanana_jax.data.read.sources import PreparedSource
from kanana_jax.data.stream import packing
from kanana_jax.data.tokens.tokenizer import Tokenizer, encode_document


@dataclasses.dataclass(frozen=True)
class HeldoutRows:
    """Evaluation rows of one source: arrays `[rows, T]`, and the bytes of text that they hold."""

    name: str
    lang: str
    rows: packing.Row
    bytes: int
    documents: int


def heldout_rows(
    sources: Mapping[str, PreparedSource], tokenizer: Tokenizer, seq_len: int, max_bytes: int
) -> list[HeldoutRows]:
    """The first held-out documents of each source, up to `max_bytes` of text each (at least one)."""
    result = []
    for name, source in sources.items():
        documents, size = [], 0
        if source.documents("heldout"):
            for data in source.split("heldout"):
                text = json.loads(data)["text"]
                if documents and size + len(text.encode()) > max_bytes:
                    break
                size += len(text.encode())
                documents.append(encode_document(tokenizer, text))
        if documents:
            result.append(HeldoutRows(name, source.lang, packing.pack(documents, seq_len), size, len(documents)))
    return result
