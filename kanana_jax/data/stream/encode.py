"""Encoders: from a record to the sequences of tokens that a stage trains on.

A stage names its encoder; packing, held-out rows, teacher caches and a plan's abstract batches follow from it. A text
is one sequence in which every token counts; in a conversation only the assistant's tokens count; a
preference pair is two, the chosen answer and the rejected one, each after the prompt; only the answers count.
Filter rules judge a conversation by its text; parts cut from that text stay in its messages.
"""

import dataclasses
import functools
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol, TypeVar

import numpy as np

from kanana_jax.data.read.record import Form, Record, form_of
from kanana_jax.data.tokens import chat
from kanana_jax.data.tokens.rendering import ChatRefused
from kanana_jax.data.tokens.tokenizer import Tokenizer, encode_document, rows_fingerprint
from kanana_jax.errors import UserError

Made = TypeVar("Made")
_SHOWN = 400  # letters kept from the end of a prompt's last turn


class Example(NamedTuple):
    """A sequence to train on.

    Attributes:
      tokens: int32 `[n]`.
      weights: float32 `[n]`, of each token's loss as a target; None: 1 for all.
    """

    tokens: np.ndarray
    weights: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Refused:
    """A record that nothing can be learnt from; counted by its reason, like a filter's rule."""

    reason: str


# Whether a record's sequences stay together in one row; "each": each stays whole, in any row.
Whole = Literal[True, False, "each"]


class Encoder(Protocol):
    """Record → its sequences, or the reason why it has none; pure, picklable.

    Attributes:
      whole: see `packing.Packer`.
      forms: forms of the records that it is made for (`form_of`).
    """

    @property
    def whole(self) -> Whole: ...

    @property
    def forms(self) -> tuple[Form, ...]: ...

    def __call__(self, record: Record) -> Sequence[Example] | Refused: ...


class TextEncoder(NamedTuple):
    """A document: its text as the tokenizer encodes it (BOS only where it adds one), and EOS."""

    tokenizer: Tokenizer
    whole: Whole = False
    forms: tuple[Form, ...] = ("text",)

    @property
    def fingerprint(self) -> str:
        """A hash of everything that determines a document's tokens."""
        return rows_fingerprint(self.tokenizer)

    def __call__(self, record: Record) -> Sequence[Example]:
        return (Example(encode_document(self.tokenizer, record["text"])),)


def _counting(call: Callable[[Any, Record], Sequence[Example] | Refused]) -> Callable[..., Any]:
    """Counts conversations that the chat template refuses: because of a system message, say, or the order of turns."""

    @functools.wraps(call)
    def wrapped(self: Any, record: Record) -> Sequence[Example] | Refused:
        try:
            return call(self, record)
        except ChatRefused:
            return Refused("refused_by_template")

    return wrapped


class ConversationEncoder(NamedTuple):
    """A conversation in the chat format; only the assistant's words and the ends of its turns carry loss.

    If the template writes earlier turns differently from last ones, it gives several sequences (`chat.encode_answers`).

    Attributes:
      seq_len: tokens of a row, beyond which a conversation is cut; 0: never cut.
      replay: whether a text becomes one sequence in which every token counts, cut at a row's end; otherwise it
        is refused.
    """

    tokenizer: Tokenizer
    seq_len: int = 0
    whole: Whole = "each"
    forms: tuple[Form, ...] = ("messages",)
    replay: bool = False

    @_counting
    def __call__(self, record: Record) -> Sequence[Example] | Refused:
        if self.replay and form_of(record) == "text":
            tokens = encode_document(self.tokenizer, record["text"])
            return (Example(tokens[: self.seq_len + 1 if self.seq_len else None]),)
        turns = _turns(record, "messages", "conversations")
        said = [turn for turn in turns if turn["role"] == "assistant"]
        if said and not any(map(_says, said)):
            return Refused("empty_answer")
        made = _named(record, chat.encode_answers, self.tokenizer, turns, record.get("tools"))
        found = [_Weighted(*each) for each in made]
        if not any(example.weights.any() for example in found):
            return Refused("no_answer")
        end = self.seq_len + 1 if self.seq_len else None
        learnt = [Example(*example) for example in found if example.weights[1:end].any()]  # the first is not a target
        return learnt or Refused("prompt_longer_than_row")


def _says(turn: Mapping[str, Any]) -> bool:
    return bool(turn.get("tool_calls") or (turn.get("content") or "").strip())


class PairEncoder(NamedTuple):
    """A preference pair: the chosen answer and the rejected one, each after the prompt.

    Both stay in one row, one after the other, so odd segments of a row are chosen answers and the even segment
    after each is its rejected one.

    Attributes:
      seq_len: tokens of a row.
    """

    tokenizer: Tokenizer
    seq_len: int
    whole: Whole = True
    forms: tuple[Form, ...] = ("chosen",)

    @_counting
    def __call__(self, record: Record) -> Sequence[Example] | Refused:
        prompt = _turns(record, "prompt", "preference pairs")
        examples = []
        for field in ("chosen", "rejected"):
            answer = _turns(record, field, "preference pairs")
            if not any(map(_says, answer)):
                return Refused("empty_answer")
            examples.append(_conversation(self.tokenizer, record, [*prompt, *answer], len(prompt)))
        chosen, rejected = examples
        if not chosen.weights[1:].any() or not rejected.weights[1:].any():
            return Refused("no_answer")
        if np.array_equal(chosen.tokens, rejected.tokens):
            return Refused("identical_answers")
        # A row has one token more than its inputs.
        if len(chosen.tokens) + len(rejected.tokens) > self.seq_len + 1:
            return Refused("pair_longer_than_row")
        return tuple(Example(*example) for example in examples)


class LabelledEncoder(NamedTuple):
    """A conversation whose last answer is desirable or not, by its field `label`; or a pair, which has one of each.

    The last answer's tokens have weight 1 if it is desirable, else −1.

    Attributes:
      seq_len: tokens of a row.
    """

    tokenizer: Tokenizer
    seq_len: int
    whole: Whole = True
    forms: tuple[Form, ...] = ("messages", "chosen")

    @_counting
    def __call__(self, record: Record) -> Sequence[Example] | Refused:
        if "chosen" in record:
            found = PairEncoder(self.tokenizer, self.seq_len)(record)
            if isinstance(found, Refused):
                return found
            chosen, rejected = found
            assert rejected.weights is not None  # a pair's sequences have weights
            return chosen, rejected._replace(weights=-rejected.weights)
        turns = _turns(record, "messages", "labelled conversations")
        asked = [i for i, turn in enumerate(turns) if turn["role"] != "assistant"]
        label, first = record.get("meta", {}).get("label"), asked[-1] + 1 if asked else 0
        if not isinstance(label, (bool, int)) or label not in (0, 1):
            raise UserError(f"record '{record['id']}': its label is {label!r}, not true or false")
        if first in (0, len(turns)) or not any((turn.get("content") or "").strip() for turn in turns[first:]):
            return Refused("empty_answer")
        example = _conversation(self.tokenizer, record, turns, first)
        if not example.weights[1:].any():
            return Refused("no_answer")
        if len(example.tokens) > self.seq_len + 1:
            return Refused("conversation_longer_than_row")
        return (Example(example.tokens, example.weights if label else -example.weights),)


class RewardEncoder(NamedTuple):
    """A preference pair for a reward model, which reads an answer's reward at the token that ends it.

    Like `PairEncoder`, but each sequence ends with that token, and one further token is its target: in a row, the
    reward is at the last position of a segment that has a weight. That weight is 1, or 1 plus the pair's margin.

    Attributes:
      seq_len: tokens of a row.
      margin: whether pairs have a margin, in their field `margin`.
    """

    tokenizer: Tokenizer
    seq_len: int
    margin: bool = False
    whole: Whole = True
    forms: tuple[Form, ...] = ("chosen",)

    def __call__(self, record: Record) -> Sequence[Example] | Refused:
        examples = PairEncoder(self.tokenizer, self.seq_len)(record)
        if isinstance(examples, Refused):
            return examples
        margin = _margin(record) if self.margin else 0.0
        found = []
        for example in examples:
            assert example.weights is not None  # a pair's sequences have weights
            end = ends_at(example.weights)
            tokens = np.append(example.tokens[:end], np.int32(self.tokenizer.eos_id))
            found.append(Example(tokens, np.append(example.weights[:end], np.float32(1 + margin))))
        too_long = sum(len(example.tokens) for example in found) > self.seq_len + 1
        return Refused("pair_longer_than_row") if too_long else tuple(found)


def ends_at(weights: np.ndarray) -> int:
    """The tokens of a conversation up to the end of its last answer; the template may add line ends after it."""
    return int(np.flatnonzero(weights)[-1]) + 1


def _margin(record: Record) -> float:
    margin = record.get("meta", {}).get("margin", 0)
    if isinstance(margin, bool) or not isinstance(margin, (int, float)) or not margin >= 0:
        raise UserError(f"record '{record['id']}': its margin is {margin!r}, not a number of at least 0")
    return float(margin)


class PromptEncoder(NamedTuple):
    """A prompt, up to the header of the answer to be written, and the fields by which answers are judged.

    One record fills one row: segment 1 is the prompt, without loss; segment 2 is not text but the record's fields
    `id`, `lang`, `answer` and `verifier` with the last turn (`fields_of`), padded with zeros.

    Attributes:
      seq_len: tokens of a row.
      longest: tokens of a prompt, beyond which its record is left out.
    """

    tokenizer: Tokenizer
    seq_len: int
    longest: int
    whole: Whole = True
    forms: tuple[Form, ...] = ("prompt",)

    @_counting
    def __call__(self, record: Record) -> Sequence[Example] | Refused:
        prompt = _turns(record, "prompt", "prompts")
        ids = _named(record, chat.encode_chat, self.tokenizer, prompt, record.get("tools"))
        if len(ids) > self.longest:
            return Refused("prompt_longer_than_row")
        room = self.seq_len + 1 - len(ids)
        data = _judged_by(record, prompt[-1].get("content") or "", 4 * room - 1)
        if data is None:
            return Refused("answer_longer_than_row")
        words = np.zeros(4 * room, np.uint8)
        words[: len(data)] = np.frombuffer(data, np.uint8)
        rest = words.view("<i4").astype(np.int32)
        return Example(ids, np.zeros(len(ids), np.float32)), Example(rest, np.zeros(room, np.float32))


def _judged_by(record: Record, said: str, room: int) -> bytes | None:
    """A record's fields as JSON, with as much of the end of its last turn as fits; None: there is no room."""
    fields = {key: record[key] for key in ("id", "lang", "answer", "verifier") if key in record}
    shown = min(len(said), _SHOWN)
    while True:
        data = json.dumps({**fields, "text": said[len(said) - shown :]}, ensure_ascii=False).encode()
        if len(data) <= room or not shown:
            return data if len(data) <= room else None
        shown //= 2


def fields_of(inputs_T: np.ndarray, targets_T: np.ndarray, segment_ids_T: np.ndarray) -> tuple[np.ndarray, Any]:
    """A `PromptEncoder`'s row: its prompt, int32 `[n]`, and its record's fields."""
    count = int((segment_ids_T == 1).sum())
    data = np.asarray([*inputs_T[count:], targets_T[-1]], "<i4").tobytes()
    return np.asarray(inputs_T[:count], np.int32), json.loads(data.rstrip(b"\0"))


class _Weighted(NamedTuple):
    tokens: np.ndarray
    weights: np.ndarray


def _turns(record: Record, field: str, what: str) -> list[Mapping[str, Any]]:
    if field not in record:
        raise UserError(
            f"record '{record['id']}' has no '{field}', which a stage that trains on {what} needs: name other sources "
            "in its mixture"
        )
    return record[field]


def _conversation(
    tokenizer: Tokenizer, record: Record, turns: Sequence[Mapping[str, Any]], first: int = 0
) -> _Weighted:
    return _Weighted(*_named(record, chat.encode_conversation, tokenizer, turns, record.get("tools"), first))


def _named(record: Record, make: Callable[..., Made], *arguments: Any) -> Made:
    """Calls a function; its errors then name the record."""
    try:
        return make(*arguments)
    except ChatRefused:
        raise
    except UserError as error:
        raise UserError(f"record '{record['id']}': {error}") from error
