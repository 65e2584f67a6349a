"""Tokenizers behind one small protocol: Hugging Face `tokenizer.json`, and SentencePiece models."""

import hashlib
import pathlib
from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np

from kanana_jax.data.tokens import folder as folder_files
from kanana_jax.data.tokens import hugging_face, sentence_piece
from kanana_jax.data.tokens.chat_format import ChatFormat
from kanana_jax.data.tokens.hugging_face import HuggingFace
from kanana_jax.data.tokens.sentence_piece import SentencePiece
from kanana_jax.errors import UserError
from kanana_jax.files import place


class Tokenizer(Protocol):
    """Text ⇄ token ids.

    Attributes:
      vocab_size: ids are in `[0, vocab_size)`; a model's vocabulary may be padded beyond them.
      bos_id: None for a vocabulary that has none.
      eos_id: put after every document that is trained on.
      end_ids: every id that ends a text by the folder's files, with `eos_id`.
      prefix, suffix: ids that the tokenizer puts around a text, as transformers' `AutoTokenizer` does in its defaults.
      symbols: spellings of the special tokens.
      fingerprint: a hash of the vocabulary's file, kept in `model.json`.
      chat: the folder's chat templates.
    """

    vocab_size: int
    bos_id: int | None
    eos_id: int
    end_ids: tuple[int, ...]
    prefix: tuple[int, ...]
    suffix: tuple[int, ...]
    symbols: tuple[str, ...]
    fingerprint: str

    @property
    def chat(self) -> ChatFormat: ...

    def encode(self, text: str) -> np.ndarray:
        """int32 ids without specials; special tokens in the text stay text."""
        ...

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]: ...

    def encode_with_symbols(self, text: str) -> np.ndarray:
        """int32 ids of a text in which spelled-out special tokens are symbols, as in other tools; no BOS is added."""
        ...

    def encode_placed(self, text: str, *, symbols: bool) -> tuple[np.ndarray, np.ndarray]:
        """int32 ids `[n]`, and the letters of the text that each holds a part of: int32 `[n, 2]`, first and end.

        Args:
          symbols: whether special tokens that are spelt out are symbols (`encode_with_symbols`) or text (`encode`).
        """
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
    """A text to train on, int32: as the tokenizer puts it (BOS only where it adds one), and EOS."""
    ids = [*tokenizer.prefix, *tokenizer.encode(text), *tokenizer.suffix]
    return np.asarray(ids if tokenizer.suffix[-1:] == (tokenizer.eos_id,) else [*ids, tokenizer.eos_id], np.int32)


def encode_prompt(tokenizer: Tokenizer, text: str) -> np.ndarray:
    """A text to continue, int32: as the tokenizer begins one.

    Raises:
      UserError: nothing to begin with: no text, and no BOS.
    """
    ids = np.asarray([*tokenizer.prefix, *tokenizer.encode(text)], np.int32)
    if not len(ids):
        raise UserError("the prompt is empty, and the tokenizer adds no BOS: give some text")
    return ids


def rows_fingerprint(tokenizer: Tokenizer) -> str:
    """A hash of everything that determines the tokens of a document: the vocabulary, and the tokens around a text.

    It is the vocabulary's if BOS precedes a text and EOS follows it.
    """
    if tokenizer.prefix == (tokenizer.bos_id,) and tokenizer.suffix in ((), (tokenizer.eos_id,)):
        return tokenizer.fingerprint
    around = f"{list(tokenizer.prefix)} {list(tokenizer.suffix)} {tokenizer.eos_id}"
    return hashlib.sha256(f"{tokenizer.fingerprint} {around}".encode()).hexdigest()


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


def copy_files(source: pathlib.Path, target: pathlib.Path) -> None:
    """Copies a folder's tokenizer with all that travels with it, as it is."""
    files = folder_files.companions(source)
    for name in (sentence_piece.FILE, hugging_face.FILE):
        if (source / name).is_file():
            files[name] = (source / name).read_bytes()
    for name, data in files.items():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_bytes(data)


def load_tokenizer(path: str | pathlib.Path, add_bos: bool | None = None) -> Tokenizer:
    """The tokenizer of a `.model` file or of a folder with `tokenizer.json` or `tokenizer.model`.

    Args:
      add_bos: whether BOS precedes a text; None: as in the folder.

    Raises:
      UserError: there is none, or it is broken.
      ConfigError: `add_bos` for a tokenizer without BOS.
    """
    path = place(path)
    if path.is_file() and path.name == hugging_face.FILE:
        return HuggingFace(path.parent, add_bos)
    if path.is_file():
        return SentencePiece(path, add_bos)
    if (path / hugging_face.FILE).is_file():
        return HuggingFace(path, add_bos)
    if (path / sentence_piece.FILE).is_file():
        return SentencePiece(path / sentence_piece.FILE, add_bos)
    raise UserError(f"{path} has no tokenizer: it needs {hugging_face.FILE} or {sentence_piece.FILE}")
