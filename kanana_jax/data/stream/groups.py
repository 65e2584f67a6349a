"""The encoder of an embedding model's records: texts that belong together, or a text alone.

A group has the same number of sequences in every record, so a segment's number in its row gives its group and its role:
`1 + p·G + g` is text `g` of group `p`. Weights mark the tokens that count in a text's vector: those of the text itself,
not those of an instruction before it.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from kanana_jax.data.read.record import Form, Record
from kanana_jax.data.stream.encode import Example, Refused, Whole
from kanana_jax.data.tokens.instructed import instructed
from kanana_jax.data.tokens.tokenizer import Tokenizer
from kanana_jax.errors import UserError


class GroupEncoder(NamedTuple):
    """An anchor, its positive and its negatives, or a text, each as a segment.

    Each text is followed by one further token, since a row's weights belong to its targets; a missing negative is that
    token alone. A model must not attend to these tokens: `models.embedding.visible` identifies them by their weights.
    More of them fill a group up to its share of a row, so no row has more than `per_row` groups.

    Attributes:
      seq_len: tokens of a row.
      negatives: negatives per group; further ones are left out.
      per_row: most groups in a row.
      longest: most tokens of a text; 0: as many as a row has.
      instruction: text put before anchors and texts.
      paired: whether records are anchors with their positives and negatives; otherwise each record's text is a group.
    """

    tokenizer: Tokenizer
    seq_len: int
    negatives: int = 0
    per_row: int = 8
    longest: int = 0
    instruction: str = ""
    paired: bool = True
    whole: Whole = True

    @property
    def forms(self) -> tuple[Form, ...]:
        return ("anchor",) if self.paired else ("text",)

    def __call__(self, record: Record) -> Sequence[Example] | Refused:
        if self.paired and "anchor" not in record:
            raise UserError(
                f"record '{record['id']}' has no 'anchor', which a stage that trains on texts that belong together "
                "reads: name other sources in its mixture, or set form = 'texts'"
            )
        needed = (record["anchor"], record["positive"]) if self.paired else (record["text"],)
        if not all(text.strip() for text in needed):
            return Refused("empty_text")
        given = [text for text in record.get("negatives", ()) if text.strip()][: self.negatives] if self.paired else []
        end = np.int32(self.tokenizer.eos_id)
        found = []
        for place, text in enumerate((*needed, *given)):
            one = instructed(self.tokenizer, text, self.instruction if place == 0 else "", self.longest)
            if not one.counted:
                return Refused("no_token_beside_instruction")
            ids, skipped = one.ids, one.skipped
            weights = np.ones(len(ids) + 1, np.float32)
            weights[: skipped + 1] = 0  # weights are those of the target after a token
            found.append(Example(np.append(ids, end), weights))
        missing = self.negatives - len(given) if self.paired else 0
        found += [Example(np.array([end]), np.zeros(1, np.float32))] * missing
        total, share = sum(len(one.tokens) for one in found), -(-(self.seq_len + 1) // self.per_row)
        if total > self.seq_len + 1:
            return Refused("texts_longer_than_row")
        if total < share:
            last, more = found[-1], share - total
            assert last.weights is not None  # sequences of a group have weights
            found[-1] = Example(
                np.append(last.tokens, np.full(more, end)), np.append(last.weights, np.zeros(more, np.float32))
            )
        return tuple(found)
