"""Constrained decoding: a grammar determines at each step which tokens may be sampled (`llguidance`).

Grammars work on bytes, so a character may span several tokens. Thinking, `<think>…</think>` at the beginning of a
turn, is unconstrained except for its end: the grammar starts after it.
"""

import dataclasses
import functools
import pathlib
import tempfile
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from kanana_jax.data.tokens import conversion, hugging_face, sentence_piece
from kanana_jax.data.tokens.tokenizer import Tokenizer
from kanana_jax.errors import ConfigError, UserError, install
from kanana_jax.inference import thinking
from kanana_jax.inference.generate import Allowed

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

_CLOSE = thinking.CLOSE.encode()


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """The bytes of a tokenizer's tokens, for grammars.

    Attributes:
      size: number of tokens.
      ends: ids that end a turn; a grammar allows them wherever it may end.
    """

    tokenizer: Tokenizer
    tokens: "LLTokenizer"
    size: int
    ends: tuple[int, ...]

    @staticmethod
    def of(tokenizer: Tokenizer, ends: Sequence[int]) -> "Vocabulary":
        """Takes about a second with 128,000 tokens.

        Raises:
          ConfigError: the extra `calls` is not installed.
          UserError: no id ends a turn, or the library does not know how the tokenizer spells its tokens.
        """
        try:
            from llguidance import LLTokenizer
        except ImportError as error:
            raise ConfigError(f"constrained decoding needs llguidance: {install('calls')}") from error
        if not ends:
            raise UserError("constrained decoding needs a token that ends a turn, and the tokenizer has none")
        try:
            tokens = LLTokenizer(_definition(tokenizer), n_vocab=tokenizer.vocab_size, eos_token=list(ends))
        except ValueError as error:
            told = " ".join(str(error).split())[:150]
            raise UserError(f"constrained decoding cannot read the tokenizer ({told}): use another model") from error
        return Vocabulary(tokenizer, tokens, tokenizer.vocab_size, tuple(ends))

    def symbols(self, marks: Sequence[str]) -> list[str]:
        """The marks that are single tokens, which a grammar must name as such: `<mark>`, not `"<mark>"`.

        These are special tokens, and others added to a vocabulary (Qwen's `<tool_call>`).
        """
        ids = {mark: self.tokenizer.token_id(mark) for mark in marks}
        return [mark for mark, index in ids.items() if index is not None and self.tokens.is_special_token(index)]

    def matcher(self, grammar: str) -> "LLMatcher":
        """A matcher at the start of a grammar in llguidance's Lark dialect.

        Raises:
          UserError: the grammar cannot be compiled.
        """
        from llguidance import LLMatcher

        matcher = LLMatcher(self.tokens, LLMatcher.grammar_from_lark(grammar), log_level=0)
        if matcher.is_error():
            raise UserError(f"the grammar cannot be used ({' '.join(matcher.get_error().split())[:200]})")
        return matcher

    @functools.cached_property
    def closing(self) -> tuple[tuple[int, int, bytes], ...]:
        """Tokens that may end the thinking and start the answer: id, bytes of the closing tag, bytes of the answer.

        Blanks between tag and answer are skipped.
        """
        found = []
        for index in range(self.size):
            text = b"" if self.tokens.is_special_token(index) else self.tokens.decode_bytes([index])
            for at in (i + 1 for i, byte in enumerate(text) if byte == _CLOSE[-1]):
                held = text[max(0, at - len(_CLOSE)) : at]
                if _CLOSE.endswith(held) and (len(held) == at or held == _CLOSE) and text[at:].strip():
                    found.append((index, len(held), text[at:].lstrip()))
        return tuple(found)


def _definition(tokenizer: Tokenizer) -> str:
    """The tokenizer's `tokenizer.json`."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        tokenizer.save(folder)
        if (folder / hugging_face.FILE).is_file():
            return (folder / hugging_face.FILE).read_text(encoding="utf-8")
        return conversion.convert((folder / sentence_piece.FILE).read_bytes())[hugging_face.FILE].decode()


class Constraint:
    """The state of a grammar while an answer is being written.

    Args:
      prompt: the text before the answer.

    Attributes:
      error: the reason why the grammar could not be followed, at which the answer ends; empty if it could.
    """

    def __init__(self, vocabulary: Vocabulary, grammar: str, prompt: np.ndarray):
        self._vocabulary, self._prompt = vocabulary, prompt
        self._fresh = vocabulary.matcher(grammar)
        self._matcher = self._fresh.deep_copy()
        self._thinks = thinking.begins(vocabulary.tokenizer, prompt)
        self._may_think, self._begun = not self._thinks, self._thinks
        self._new: list[int] = []
        self._said = ""
        self.error = ""

    def take(self, token: int) -> None:
        """Records the sampled token."""
        if self.error:
            return
        if self._thinks or self._may_think:
            self._new.append(token)
            self._think()
            if self._thinks or (self._begun and not self._may_think):
                self._begun = self._thinks
                return
        if token not in self._vocabulary.ends and not self._matcher.consume_token(token):
            self.error = " ".join(self._matcher.get_error().split())[:200] or "a token that was not allowed"

    def _think(self) -> None:
        """Follows the tags; the grammar restarts after the closing one, in the middle of a token if necessary."""
        before, new = self._said, np.asarray(self._new, np.int32)
        self._said = text = thinking.spelt(self._vocabulary.tokenizer, self._prompt, new)
        begun = text.lstrip()
        if self._may_think:
            self._thinks = self._begun = begun.startswith(thinking.OPEN)
            # As long as the answer may still begin with the tag.
            self._may_think = not self._thinks and thinking.OPEN.startswith(begun)
        if self._thinks and thinking.CLOSE in text:
            self._thinks = False
            self._matcher = self._fresh.deep_copy()
            for token, answer in self._closing(before):
                if token == self._new[-1]:
                    self._matcher.consume_tokens(self._vocabulary.tokens.tokenize_bytes(answer))

    def _closing(self, said: str) -> Iterator[tuple[int, bytes]]:
        """The tokens that would end the thinking after a text, with the bytes of the answer that they contain."""
        for token, held, answer in self._vocabulary.closing:
            if said.endswith(thinking.CLOSE[:-held]):
                yield token, answer

    def _fits(self, answer: bytes) -> bool:
        tokens = self._vocabulary.tokens.tokenize_bytes(answer)
        return self._fresh.validate_tokens(tokens) == len(tokens)

    def allowed(self, words: np.ndarray) -> None:
        """Sets the bits of the tokens that may be sampled next in int32 `[ceil(V / 32)]`."""
        bits = words.view(np.uint32)
        if self._thinks:  # a turn that ended here would not satisfy the grammar
            words[:] = -1
            for end in self._vocabulary.ends:
                bits[end // 32] &= ~np.uint32(1 << end % 32)
            for token in (token for token, answer in self._closing(self._said) if not self._fits(answer)):
                bits[token // 32] &= ~np.uint32(1 << token % 32)
            return
        if not self.error:
            words[:] = np.frombuffer(self._matcher.compute_bitmask(), np.int32)[: len(words)]
            if self._matcher.is_error():
                self.error = " ".join(self._matcher.get_error().split())[:200]
        if self.error or not words.any():
            self.error = self.error or "the grammar allows no token"
            words[:] = 0
            for end in self._vocabulary.ends:
                bits[end // 32] |= np.uint32(1 << end % 32)
        opened = self._vocabulary.tokenizer.token_id(thinking.OPEN)
        if self._may_think and not self._new and not self.error and opened is not None:
            bits[opened // 32] |= np.uint32(1 << opened % 32)


def followed(constraints: Sequence[Constraint | None], size: int) -> Allowed:
    """The words (`Allowed`) of a batch, with one constraint per prompt; None: any token.

    Args:
      size: size of the vocabulary.
    """

    def allowed(last: np.ndarray | None) -> np.ndarray:
        words = np.full((len(constraints), -(-size // 32)), -1, np.int32)
        for row, constraint in enumerate(constraints):
            if constraint is None or (last is not None and last[row] < 0):
                continue
            if last is not None:
                constraint.take(int(last[row]))
            constraint.allowed(words[row])
        return words

    return allowed
