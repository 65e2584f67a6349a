"""Conversations as token ids, by the chat template of the tokenizer's folder.

The text of a message stays text, even if it spells a special token: only the template writes those. The ids are
those of transformers' `apply_chat_template` wherever no message spells one.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kanana_jax.data.tokens.chat_format import Message
from kanana_jax.data.tokens.template_process import BEGIN, END
from kanana_jax.data.tokens.tokenizer import Tokenizer
from kanana_jax.errors import UserError

# Noncharacters of Unicode around a special token that a message spells.
_OPEN, _CLOSE = "\ufdd2", "\ufdd3"
_MARKS = re.compile(f"[{BEGIN}{END}{_OPEN}{_CLOSE}]")
Tools = Sequence[Mapping[str, Any]] | None


def encode_chat(tokenizer: Tokenizer, messages: Sequence[Message], tools: Tools = None, **more: Any) -> np.ndarray:
    """int32 ids of a conversation, up to the header of the assistant's next turn.

    Args:
      messages: `{"role": …, "content": text}`, with whatever else the template reads.
      tools: JSON schemas of functions that the assistant may call.
      more: further variables of the template, such as `enable_thinking`.

    Raises:
      UserError: the template refuses the messages, or there is none (`ChatFormat`).
    """
    (text,) = tokenizer.chat.render([_marked(tokenizer, messages)], tools=_marked(tokenizer, tools), **more)
    return _encode(tokenizer, text)[0]


def encode_conversation(
    tokenizer: Tokenizer, messages: Sequence[Message], tools: Tools = None, first: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """A whole conversation, to train on.

    What the assistant says is what the template marks by `{% generation %}`; of one that marks nothing, what each of
    the assistant's turns adds to the text before it, to the last symbol.

    Args:
      first: the first message whose words carry loss; those before it are a prompt.

    Returns:
      int32 ids `[n]`, and float32 weights `[n]`: 1 for what the assistant says and the end of its turn, else 0.

    Raises:
      UserError: as `encode_chat`; or a template that marks nothing writes earlier turns otherwise than last ones, so
        that what is trained on would not be what a model is asked with; or a whole conversation otherwise than its
        prompt.
    """
    messages, tools = _marked(tokenizer, messages), _marked(tokenizer, tools)
    text, said = _whole(tokenizer, messages, tools)
    if said is None:
        (_, said), *others = _added(tokenizer, messages, tools, text, first)
        if others:
            raise UserError(
                "the chat template writes an earlier turn otherwise than the last one, and does not mark what the "
                "assistant says by {% generation %}: put such marks in it, or train on conversations of one answer"
            )
    elif first:
        said = _behind(tokenizer, messages[:first], tools, text, said)
    return _weighed(tokenizer, text, said)


def encode_answers(
    tokenizer: Tokenizer, messages: Sequence[Message], tools: Tools = None
) -> list[tuple[np.ndarray, np.ndarray]]:
    """A conversation, to train on each of its answers behind the prompt that a model is asked with.

    One sequence, as of `encode_conversation`, unless the template marks nothing and writes earlier turns otherwise than
    last ones (without their reasoning, say): then several, beginnings of the conversation and all of it, in which only
    those answers carry loss that are written as when they were the last turn.

    Raises:
      UserError: as `encode_chat`; or an answer does not follow the text of its prompt.
    """
    messages, tools = _marked(tokenizer, messages), _marked(tokenizer, tools)
    text, said = _whole(tokenizer, messages, tools)
    texts = [(text, said)] if said is not None else _added(tokenizer, messages, tools, text, 0)
    return [_weighed(tokenizer, *each) for each in texts]


def _whole(tokenizer: Tokenizer, messages: Sequence[Message], tools: Tools) -> tuple[str, list[tuple[int, int]] | None]:
    """A conversation's text, and what its template marks; None: it marks nothing."""
    (text,) = tokenizer.chat.render([messages], tools=tools, prompts=[False], marks=True)
    said = _of_template(text) if BEGIN in text else None
    return text.replace(BEGIN, "").replace(END, ""), said


def _weighed(tokenizer: Tokenizer, text: str, said: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    """Ids of a text, and weights: 1 for tokens that hold a part of what is said."""
    ids, places = _encode(tokenizer, text)
    # Places count letters without the marks around what only spells a symbol.
    before = np.cumsum([0, *(letter in (_OPEN, _CLOSE) for letter in text)])
    weights = np.zeros(len(ids), np.float32)
    for begin, end in said:
        if begin < end:
            weights[(places[:, 1] > begin - before[begin]) & (places[:, 0] < end - before[end])] = 1
    return ids, weights


def _of_template(text: str) -> list[tuple[int, int]]:
    """Positions of a template's marks, in characters of the text without them."""
    found, at, begun = [], 0, []
    for letter in text:
        if letter == BEGIN:
            begun.append(at)
        elif letter == END and begun:
            found.append((begun.pop(), at))
        else:
            at += 1
    return found


def _behind(
    tokenizer: Tokenizer, prompt: Sequence[Message], tools: Tools, whole: str, said: list[tuple[int, int]]
) -> list[tuple[int, int]]:
    """The marked parts of a text that lie behind its prompt."""
    (before,) = tokenizer.chat.render([prompt], tools=tools)
    if not whole.startswith(before):
        raise UserError(
            "the chat template writes a prompt differently where an answer follows, so that a model would be trained "
            "on other prompts than it is asked with: use a template that does not"
        )
    return [(max(begin, len(before)), end) for begin, end in said if end > len(before)]


def _added(
    tokenizer: Tokenizer, messages: Sequence[Message], tools: Tools, whole: str, first: int
) -> list[tuple[str, list[tuple[int, int]]]]:
    """What each turn of the assistant, from message `first` on, adds to the text before it.

    Returns:
      Texts, and the parts of each that are said: the whole conversation, last, with all that stands in it as it was
      written when it was the last turn; before it, beginnings of the conversation, with turns that do not.
    """
    turns = [i for i, message in enumerate(messages) if message["role"] == "assistant" and i >= first]
    parts = [part for i in turns for part in (messages[:i], messages[: i + 1])]
    prompts = [bool(i % 2 == 0) for i in range(len(parts))]
    texts = tokenizer.chat.render(parts, tools=tools, prompts=prompts) if parts else []
    found: list[tuple[str, list[tuple[int, int]]]] = [(whole, [])]
    for before, after in reversed(list(zip(texts[::2], texts[1::2], strict=True))):
        if not after.startswith(before):
            raise UserError(
                "the chat template writes an answer otherwise than behind its prompt, and does not mark what the "
                "assistant says by {% generation %}: put such marks in it"
            )
        if not found[0][0].startswith(after):
            found.insert(0, (after, []))
        end = len(after.rstrip())  # line ends after the symbol that ends a turn are never written by a model
        closed = any(after[:end].endswith(symbol) for symbol in tokenizer.symbols)
        found[0][1].insert(0, (len(before), max(end if closed else len(after), len(before))))
    return found if found[-1][1] or len(found) == 1 else found[:-1]


def _symbols(tokenizer: Tokenizer) -> re.Pattern[str]:
    """Matches the spelling of any special token, the longest first."""
    ways = sorted(tokenizer.symbols, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, ways)) or "(?!)")


def _marked(tokenizer: Tokenizer, value: Any) -> Any:
    """Messages or tools in which spelled-out special tokens are between marks."""
    pattern = _symbols(tokenizer)

    def marked(value: Any) -> Any:
        if isinstance(value, str):
            return pattern.sub(f"{_OPEN}\\g<0>{_CLOSE}", _MARKS.sub("", value))
        if isinstance(value, Mapping):
            return {key: item if key == "role" else marked(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [marked(item) for item in value]
        return value

    return marked(value)


def _encode(tokenizer: Tokenizer, text: str) -> tuple[np.ndarray, np.ndarray]:
    """int32 ids of a rendered text, and the letters of the text without marks that each holds a part of."""
    if _OPEN not in text and _CLOSE not in text:
        return tokenizer.encode_placed(text, symbols=True)
    inside: list[tuple[int, int]] = []
    clean, begun = [], None
    at = 0
    for letter in text:
        if letter == _OPEN:
            begun = at
        elif letter == _CLOSE:
            if begun is not None:
                inside.append((begun, at))
            begun = None
        else:
            clean.append(letter)
            at += 1
    plain = "".join(clean)
    ids, places, last = [], [], 0
    for match in _symbols(tokenizer).finditer(plain):
        if any(begin <= match.start() < end for begin, end in inside):
            continue
        _append(tokenizer, plain, last, match.start(), ids, places)
        ids.append(np.asarray([tokenizer.token_id(match[0])], np.int32))
        places.append(np.asarray([match.span()], np.int32))
        last = match.end()
    _append(tokenizer, plain, last, len(plain), ids, places)
    return np.concatenate(ids), np.concatenate(places)


def _append(
    tokenizer: Tokenizer, text: str, begin: int, end: int, ids: list[np.ndarray], places: list[np.ndarray]
) -> None:
    """Appends the ids of a part of a text in which symbols are text."""
    if begin == end:
        return
    found, held = tokenizer.encode_placed(text[begin:end], symbols=False)
    if begin:  # a vocabulary that puts a space before a text must not put one here: it is encoded after a line end
        line = tokenizer.encode("\n")
        behind, after = tokenizer.encode_placed("\n" + text[begin:end], symbols=False)
        if len(line) and np.array_equal(behind[: len(line)], line):
            found, held = behind[len(line) :], after[len(line) :] - 1
    ids.append(found)
    places.append(held + begin)
