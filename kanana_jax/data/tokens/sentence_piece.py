"""SentencePiece `.model` files (arXiv:1808.06226): Llama 2's, and those of earlier workdirs."""

import hashlib
import pathlib
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from kanana_jax.data.tokens import charsmap, hugging_face, panics
from kanana_jax.errors import UserError
from kanana_jax.files import stage_down

FILE = "tokenizer.model"
SPACE = "\u2581"  # what SentencePiece writes for a space


class SentencePiece:
    """A SentencePiece model.

    Raises:
      UserError: the file is damaged, or has no BOS or EOS.
    """

    def __init__(self, file: pathlib.Path):
        import sentencepiece

        self._file = stage_down(file)
        data = self._file.read_bytes()
        with panics.told(f"{file} is not a SentencePiece model"):
            _check(data, self._file)
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=data)
        self.vocab_size = self._processor.vocab_size()
        self.bos_id, self.eos_id = self._processor.bos_id(), self._processor.eos_id()
        if self.bos_id < 0 or self.eos_id < 0:
            raise UserError(f"{file} has no <s> or </s>: train it with bos and eos symbols")
        self.adds_bos = True  # as Llama 2's, whose format this is
        self.fingerprint = hashlib.sha256(data).hexdigest()
        # Its own sign for a space, met in a text, would come back as a space: it is spelt in bytes, if
        # the model has them and takes text as it is.
        spelt = [self._processor.piece_to_id(f"<0x{byte:02X}>") for byte in SPACE.encode()]
        exact = all(map(self._processor.is_byte, spelt)) and self._processor.normalize("a") == "a"
        self._spelt = spelt if exact else None
        pieces = map(self._processor.id_to_piece, range(self.vocab_size))
        self._symbols = {p: i for i, p in enumerate(pieces) if self._processor.is_control(i)}

    def __reduce__(self):
        return SentencePiece, (self._file,)

    def encode(self, text: str) -> np.ndarray:
        with panics.told(f"{self._file} cannot encode a text", "mend the text, or use another tokenizer"):
            if self._spelt is None or SPACE not in text:
                return np.asarray(self._processor.encode(text), np.int32)
            first, *others = self._processor.encode(text.split(SPACE))
        return np.asarray(first + [i for part in others for i in self._spelt + part], np.int32)

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        return [self.encode(text) for text in texts]

    def encode_with_symbols(self, text: str) -> np.ndarray:
        parts = re.split("(" + "|".join(map(re.escape, self._symbols)) + ")", text)
        # Odd parts are the symbols.
        ids = [[self._symbols[p]] if i % 2 else self.encode(p).tolist() for i, p in enumerate(parts)]
        return np.asarray([i for part in ids for i in part], np.int32)

    def decode(self, ids: Iterable[int]) -> str:
        # A model's vocabulary may be padded beyond the tokenizer's.
        known = [i for i in map(int, ids) if 0 <= i < self.vocab_size and not self._processor.is_control(i)]
        with panics.told(f"{self._file} cannot decode"):
            return self._processor.decode(known)

    def token_id(self, piece: str) -> int | None:
        index = self._processor.piece_to_id(piece)
        return None if index == self._processor.unk_id() else index

    def save(self, folder: pathlib.Path) -> None:
        target = folder / FILE
        if target.resolve() != self._file.resolve():
            hugging_face.write(target, self._file.read_bytes())


def _check(data: bytes, file: pathlib.Path) -> None:
    """Raises UserError for a model whose character maps would make the library read outside of them."""
    proto = parse(data)
    for spec in (proto.normalizer_spec, proto.denormalizer_spec):
        if spec.precompiled_charsmap and not charsmap.sound(spec.precompiled_charsmap):
            raise UserError(f"{file} is damaged: its character map leads outside of itself: fetch it again")


def parse(data: bytes) -> Any:
    """The message in a `.model` file (sentencepiece_model.proto).

    Raises:
      google.protobuf.message.DecodeError: it is none.
    """
    from sentencepiece import sentencepiece_model_pb2

    return sentencepiece_model_pb2.ModelProto.FromString(data)  # ty: ignore[missing-attribute]  made at run time
