"""Tokenizers behind one small protocol: Hugging Face `tokenizer.json`, and SentencePiece models."""

import pathlib
from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np

from kanana_jax.data.tokens import hugging_face, sentence_piece
from kanana_jax.data.tokens.hugging_face import HuggingFace
from kanana_jax.data.tokens.sentence_piece import SentencePiece
from kanana_jax.errors import UserError
from kanana_jax.files import place

# All that travels with a model.
FILES = (*hugging_face.COMPANIONS, sentence_piece.FILE, hugging_face.FILE)


class Tokenizer(Protocol):
    """Text ⇄ token ids.

    Attributes:
      vocab_size: ids are in `[0, vocab_size)`.
      bos_id, eos_id: put around every document.
      fingerprint: a hash of the vocabulary's file, kept in `model.json`.
      adds_bos: whether other tools put BOS before a text that they encode.
    """

    vocab_size: int
    bos_id: int
    eos_id: int
    fingerprint: str
    adds_bos: bool

    def encode(self, text: str) -> np.ndarray:
        """int32 ids without specials; special tokens in the text stay text."""
        ...

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]: ...

    def encode_with_symbols(self, text: str) -> np.ndarray:
        """int32 ids of a text in which special tokens are spelt out, as other tools take it; no BOS is put before."""
        ...

    def decode(self, ids: Iterable[int]) -> str:
        """Text; control symbols, and ids that the vocabulary does not have, are left out."""
        ...

    def token_id(self, piece: str) -> int | None:
        """The id of a special token such as `<|eot_id|>`."""
        ...

    def save(self, folder: pathlib.Path) -> None:
        """Copies the tokenizer's files into a folder."""
        ...


def encode_document(tokenizer: Tokenizer, text: str) -> np.ndarray:
    """BOS, the text's tokens, EOS: int32."""
    return np.concatenate([[tokenizer.bos_id], tokenizer.encode(text), [tokenizer.eos_id]]).astype(np.int32)


def continuation(tokenizer: Tokenizer, prompt: Sequence[int] | np.ndarray, new: Sequence[int] | np.ndarray) -> str:
    """The text that new ids add to a prompt's.

    Both are decoded together: a tokenizer may drop the first space of what it decodes, or spell a character in bytes
    that stand on both sides.
    """
    before, whole = tokenizer.decode(prompt), tokenizer.decode([*prompt, *new])
    same = len(before)
    while not whole.startswith(before[:same]):  # a character was begun
        same -= 1
    return whole[same:]


def holds_tokenizer(folder: pathlib.Path) -> bool:
    """Returns whether a folder has a tokenizer's file."""
    return any((folder / name).is_file() for name in (hugging_face.FILE, sentence_piece.FILE))


def load_tokenizer(path: str | pathlib.Path) -> Tokenizer:
    """The tokenizer of a `.model` file or of a folder with `tokenizer.json` or `tokenizer.model`.

    Raises:
      UserError: there is none, or it is broken.
    """
    path = place(path)
    if path.is_file() and path.name == hugging_face.FILE:
        return HuggingFace(path.parent)
    if path.is_file():
        return SentencePiece(path)
    if (path / hugging_face.FILE).is_file():
        return HuggingFace(path)
    if (path / sentence_piece.FILE).is_file():
        return SentencePiece(path / sentence_piece.FILE)
    raise UserError(f"{path} has no tokenizer: it needs {hugging_face.FILE} or {sentence_piece.FILE}")
