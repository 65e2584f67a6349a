"""Separation of a model's thinking from its answer: `<think>…</think>`."""

from collections.abc import Sequence

import numpy as np

from kanana_jax.data.tokens.tokenizer import Tokenizer, continuation

OPEN, CLOSE = "<think>", "</think>"


def answer_of(text: str, *, begun: bool = False, more: bool = False) -> str:
    """A text without the part between the tags, and without line ends before it.

    Args:
      begun: whether the prompt has opened the tag.
      more: whether the text is still being written: then half a tag at its end is left out.
    """
    text, kept = OPEN * begun + text, []
    while True:
        before, opened, thought = text.partition(OPEN)
        kept.append(before)
        _, closed, text = thought.partition(CLOSE)
        if not opened and more:
            half = next((n for n in range(len(OPEN) - 1, 0, -1) if before.endswith(OPEN[:n])), 0)
            kept[-1] = before[: len(before) - half]
        if not closed:
            return "".join(kept).lstrip("\n")


def begins(tokenizer: Tokenizer, prompt: np.ndarray) -> bool:
    """Returns whether a prompt ends with an opened tag."""
    return tokenizer.token_id(OPEN) in prompt[-2:].tolist() or tokenizer.decode(prompt[-8:]).rstrip().endswith(OPEN)


def spelt(
    tokenizer: Tokenizer, prompt: Sequence[int] | np.ndarray, new: np.ndarray, marks: Sequence[str] = (OPEN, CLOSE)
) -> str:
    """The text that new ids add to a prompt's, with the marks where they are special tokens, which others leave out."""
    tags = {tokenizer.token_id(tag): tag for tag in marks if tag in tokenizer.symbols}
    text, begin = "", 0
    for at in [i for i, index in enumerate(new.tolist()) if index in tags]:
        text += continuation(tokenizer, [*prompt, *new[:begin]], new[begin:at]) + tags[int(new[at])]
        begin = at + 1
    return text + continuation(tokenizer, [*prompt, *new[:begin]], new[begin:])
