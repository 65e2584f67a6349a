"""Tokenizers behind one small protocol: SentencePiece models and Hugging Face `tokenizer.json`."""

import hashlib
import json
import pathlib
import shutil
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from kanana_jax.config import UserError

SENTENCEPIECE_FILE = "tokenizer.model"
HUGGING_FACE_FILE = "tokenizer.json"


class Tokenizer(Protocol):
    """Text ⇄ token ids.

    Attributes:
      vocab_size: ids are in `[0, vocab_size)`.
      bos_id, eos_id: put around every document.
      fingerprint: a hash of the tokenizer's file, kept in `model.json`.
    """

    vocab_size: int
    bos_id: int
    eos_id: int
    fingerprint: str

    def encode(self, text: str) -> np.ndarray:
        """int32 ids without specials; special tokens in the text stay text."""
        ...

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]: ...

    def decode(self, ids: Sequence[int]) -> str:
        """Text; control symbols are left out."""
        ...

    def token_id(self, piece: str) -> int | None:
        """The id of a special token such as `<|eot_id|>`."""
        ...

    def save(self, folder: pathlib.Path) -> None:
        """Copies the tokenizer's files into a folder."""
        ...


class SentencePiece:
    """A SentencePiece `.model` file."""

    def __init__(self, file: pathlib.Path):
        import sentencepiece

        self._file = pathlib.Path(file)
        data = self._file.read_bytes()
        try:
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=data)
        except RuntimeError as error:
            raise UserError(f"{file} is not a SentencePiece model ({error})") from error
        self.vocab_size = self._processor.vocab_size()
        self.bos_id, self.eos_id = self._processor.bos_id(), self._processor.eos_id()
        if self.bos_id < 0 or self.eos_id < 0:
            raise UserError(f"{file} has no <s> or </s>: train it with bos and eos symbols")
        self.fingerprint = hashlib.sha256(data).hexdigest()

    def __reduce__(self):
        return SentencePiece, (self._file,)

    def encode(self, text: str) -> np.ndarray:
        return np.asarray(self._processor.encode(text), np.int32)

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        return [np.asarray(ids, np.int32) for ids in self._processor.encode(list(texts))]

    def decode(self, ids: Sequence[int]) -> str:
        return self._processor.decode([int(i) for i in ids if not self._processor.is_control(int(i))])

    def token_id(self, piece: str) -> int | None:
        index = self._processor.piece_to_id(piece)
        return None if index == self._processor.unk_id() else index

    def save(self, folder: pathlib.Path) -> None:
        target = folder / SENTENCEPIECE_FILE
        if target != self._file:
            shutil.copyfile(self._file, target)


class HuggingFace:
    """A `tokenizer.json`, with BOS and EOS from the files beside it (Llama 3's BPE among others)."""

    def __init__(self, folder: pathlib.Path):
        import tokenizers

        self._folder = pathlib.Path(folder)
        file = self._folder / HUGGING_FACE_FILE
        try:
            self._tokenizer = tokenizers.Tokenizer.from_file(str(file))
        except Exception as error:  # the library raises bare Exception
            raise UserError(f"{file} is not a Hugging Face tokenizer ({error})") from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        # Special tokens inside a document are text, never control.
        self._tokenizer.encode_special_tokens = True
        self.vocab_size = self._tokenizer.get_vocab_size(with_added_tokens=True)
        self.bos_id, self.eos_id = self._special("bos_token"), self._special("eos_token")
        self.fingerprint = hashlib.sha256(file.read_bytes()).hexdigest()

    def _special(self, name: str) -> int:
        for file in ("tokenizer_config.json", "special_tokens_map.json"):
            if (self._folder / file).is_file():
                value = json.loads((self._folder / file).read_text()).get(name)
                piece = value.get("content") if isinstance(value, dict) else value
                if piece is not None and self._tokenizer.token_to_id(piece) is not None:
                    return self._tokenizer.token_to_id(piece)
        for file in ("config.json", "generation_config.json"):
            if (self._folder / file).is_file():
                value = json.loads((self._folder / file).read_text()).get(f"{name}_id")
                value = value[0] if isinstance(value, list) else value
                if value is not None:
                    return int(value)
        raise UserError(f"{self._folder} does not say its {name}: add it to tokenizer_config.json")

    def __reduce__(self):
        return HuggingFace, (self._folder,)

    def encode(self, text: str) -> np.ndarray:
        return np.asarray(self._tokenizer.encode(text, add_special_tokens=False).ids, np.int32)

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        encodings = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [np.asarray(e.ids, np.int32) for e in encodings]

    def decode(self, ids: Sequence[int]) -> str:
        return self._tokenizer.decode([int(i) for i in ids], skip_special_tokens=True)

    def token_id(self, piece: str) -> int | None:
        return self._tokenizer.token_to_id(piece)

    def save(self, folder: pathlib.Path) -> None:
        for name in (HUGGING_FACE_FILE, "tokenizer_config.json", "special_tokens_map.json"):
            if (self._folder / name).is_file() and folder != self._folder:
                shutil.copyfile(self._folder / name, folder / name)


def load_tokenizer(path: str | pathlib.Path) -> Tokenizer:
    """The tokenizer of a `.model` file or of a folder with `tokenizer.json` or `tokenizer.model`.

    Raises:
      UserError: there is none, or it is broken.
    """
    path = pathlib.Path(path)
    if path.is_file() and path.name == HUGGING_FACE_FILE:
        return HuggingFace(path.parent)
    if path.is_file():
        return SentencePiece(path)
    if (path / HUGGING_FACE_FILE).is_file():
        return HuggingFace(path)
    if (path / SENTENCEPIECE_FILE).is_file():
        return SentencePiece(path / SENTENCEPIECE_FILE)
    raise UserError(f"{path} has no tokenizer: it needs {HUGGING_FACE_FILE} or {SENTENCEPIECE_FILE}")
