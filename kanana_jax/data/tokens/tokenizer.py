"""Tokenizers behind one small protocol: SentencePiece models and Hugging Face `tokenizer.json`."""

import hashlib
import json
import os
import pathlib
from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np

from kanana_jax.errors import UserError

SENTENCEPIECE_FILE = "tokenizer.model"
HUGGING_FACE_FILE = "tokenizer.json"
_SPACE = "\u2581"  # what SentencePiece writes for a space


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

    def decode(self, ids: Iterable[int]) -> str:
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
        # Its own sign for a space, met in a text, would come back as a space: it is spelt in bytes, if
        # the model has them and takes text as it is.
        spelt = [self._processor.piece_to_id(f"<0x{byte:02X}>") for byte in _SPACE.encode()]
        exact = all(map(self._processor.is_byte, spelt)) and self._processor.normalize("a") == "a"
        self._spelt = spelt if exact else None

    def __reduce__(self):
        return SentencePiece, (self._file,)

    def encode(self, text: str) -> np.ndarray:
        if self._spelt is None or _SPACE not in text:
            return np.asarray(self._processor.encode(text), np.int32)
        first, *others = self._processor.encode(text.split(_SPACE))
        return np.asarray(first + [i for part in others for i in self._spelt + part], np.int32)

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        return [self.encode(text) for text in texts]

    def decode(self, ids: Iterable[int]) -> str:
        return self._processor.decode([int(i) for i in ids if not self._processor.is_control(int(i))])

    def token_id(self, piece: str) -> int | None:
        index = self._processor.piece_to_id(piece)
        return None if index == self._processor.unk_id() else index

    def save(self, folder: pathlib.Path) -> None:
        _copy(self._file, folder / SENTENCEPIECE_FILE)


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
        # Ids may have gaps, so this is not the number of pieces.
        self.vocab_size = max(self._tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1
        self.bos_id, self.eos_id = self._special("bos_token"), self._special("eos_token")
        self.fingerprint = hashlib.sha256(file.read_bytes()).hexdigest()

    def _special(self, name: str) -> int:
        for file in ("tokenizer_config.json", "special_tokens_map.json"):
            if (self._folder / file).is_file():
                value = _read_json(self._folder / file).get(name)
                piece = value.get("content") if isinstance(value, dict) else value
                identity = None if piece is None else self._tokenizer.token_to_id(piece)
                if identity is not None:
                    return identity
        for file in ("config.json", "generation_config.json"):
            if (self._folder / file).is_file():
                value = _read_json(self._folder / file).get(f"{name}_id")
                value = value[0] if isinstance(value, list) and value else value
                if isinstance(value, int):
                    if not 0 <= value < self.vocab_size:
                        raise UserError(
                            f"{self._folder / file}: {name}_id {value} is outside the vocabulary of {self.vocab_size}: "
                            f"name its {name} in tokenizer_config.json"
                        )
                    return value
        raise UserError(f"{self._folder} does not say its {name}: add it to tokenizer_config.json")

    def __reduce__(self):
        return HuggingFace, (self._folder,)

    def encode(self, text: str) -> np.ndarray:
        return np.asarray(self._tokenizer.encode(text, add_special_tokens=False).ids, np.int32)

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        encodings = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [np.asarray(e.ids, np.int32) for e in encodings]

    def decode(self, ids: Iterable[int]) -> str:
        return self._tokenizer.decode([int(i) for i in ids], skip_special_tokens=True)

    def token_id(self, piece: str) -> int | None:
        return self._tokenizer.token_to_id(piece)

    def save(self, folder: pathlib.Path) -> None:
        if folder.resolve() == self._folder.resolve():
            return
        if (self._folder / "special_tokens_map.json").is_file():
            _copy(self._folder / "special_tokens_map.json", folder / "special_tokens_map.json")
        # BOS and EOS may come from the model's config.json, which does not travel with the tokenizer.
        file = self._folder / "tokenizer_config.json"
        before = _read_json(file) if file.is_file() else {}
        names = {"bos_token": self.bos_id, "eos_token": self.eos_id}
        missing = {name: self._tokenizer.id_to_token(i) for name, i in names.items() if before.get(name) is None}
        if missing:
            text = json.dumps(before | missing, ensure_ascii=False, indent=2)
            _write(folder / "tokenizer_config.json", text.encode())
        else:
            _copy(file, folder / "tokenizer_config.json")
        _copy(self._folder / HUGGING_FACE_FILE, folder / HUGGING_FACE_FILE)  # last: it makes the folder a tokenizer


def _read_json(file: pathlib.Path) -> dict:
    try:
        return json.loads(file.read_bytes())
    except ValueError as error:
        raise UserError(f"{file} is not JSON ({error}): fetch it again") from error


def _copy(file: pathlib.Path, target: pathlib.Path) -> None:
    if target.resolve() != file.resolve():
        _write(target, file.read_bytes())


def _write(target: pathlib.Path, data: bytes) -> None:
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(data)
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def encode_document(tokenizer: Tokenizer, text: str) -> np.ndarray:
    """BOS, the text's tokens, EOS: int32."""
    return np.concatenate([[tokenizer.bos_id], tokenizer.encode(text), [tokenizer.eos_id]]).astype(np.int32)


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
