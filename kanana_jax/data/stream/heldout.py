"""Held-out documents as evaluation rows, and the bytes of text that they represent."""

import dataclasses
import json
from collections.abc import Container, Mapping

import numpy as np

from kanana_jax.data.read.record import form_of
from kanana_jax.data.read.sources import PreparedSource
from kanana_jax.data.stream import packing
from kanana_jax.data.stream.encode import Encoder, Refused


@dataclasses.dataclass(frozen=True)
class HeldoutRows:
    """Evaluation rows of one source: arrays `[rows, T]`, and the bytes of text that they hold."""

    name: str
    lang: str
    rows: packing.Rows[np.ndarray]
    bytes: int
    documents: int


def heldout_rows(
    sources: Mapping[str, PreparedSource],
    encoder: Encoder,
    seq_len: int,
    max_bytes: int,
    relevant: Container[str] | None = None,
) -> list[HeldoutRows]:
    """The first held-out documents of each source of the encoder's forms, up to `max_bytes` of text each.

    If no source has such a form, of all: conversations may be trained on as texts. A first document that is longer (a
    book) is cut, unless it must stay whole.

    Args:
      relevant: sources of other forms than text that are evaluated; None, or if none of them holds any out: all. Texts
        are evaluated alike in every stage, so that stages can be compared; another task's conversations say nothing
        about a stage that reads none.
    """
    held = {name: source for name, source in sources.items() if source.documents("heldout")}
    alike = [n for n, source in held.items() if form_of(json.loads(source.split("heldout")[0])) in encoder.forms]
    if relevant is not None and set(encoder.forms) != {"text"}:
        alike = [name for name in alike if name in relevant] or alike
    result = []
    for name in alike or held:
        source, documents, size = held[name], [], 0
        for data in source.split("heldout"):
            record = json.loads(data)
            if not documents and not encoder.whole:
                record["text"] = record["text"].encode()[:max_bytes].decode(errors="ignore")
            own = len(record["text"].encode())
            if documents and size + own > max_bytes:
                break
            examples = encoder(record)
            if not isinstance(examples, Refused):
                size += own
                documents.append(examples)
        if documents:
            rows = packing.pack(documents, seq_len, encoder.whole)
            result.append(HeldoutRows(name, source.lang, rows, size, len(documents)))
    return result
