"""SentencePiece `.model` files (arXiv:1808.06226): Llama 2's, and those of earlier workdirs."""

import functools
import hashlib
import json
import pathlib
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from kanana_jax.data.tokens import charsmap, hugging_face, panics
from kanana_jax.data.tokens import folder as folder_files
from kanana_jax.data.tokens.chat_format import ChatFormat
from kanana_jax.errors import UserError
from kanana_jax.files import stage_down

FILE = "tokenizer.model"
SPACE = "\u2581"  # what SentencePiece writes for a space


class SentencePiece:
    """A SentencePiece model; BOS precedes a text unless the config beside it has `add_bos_token: false`.

    Args:
      add_bos: overrides that.

    Raises:
      UserError: the file is damaged, or has no BOS or EOS.
    """

    def __init__(self, file: pathlib.Path, add_bos: bool | None = None):
        import sentencepiece

        self._file = stage_down(file.parent, lambda name: name == FILE or folder_files.belongs(name)) / file.name
        data = self._file.read_bytes()
        with panics.as_errors(f"{file} is not a SentencePiece model"):
            _check(data, self._file)
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=data)
        self.vocab_size = self._processor.vocab_size()
        bos, self.eos_id = self._processor.bos_id(), self._processor.eos_id()
        if bos < 0 or self.eos_id < 0:
            raise UserError(f"{file} has no <s> or </s>: train it with bos and eos symbols")
        self.bos_id: int | None = bos
        config = folder_files.read_json(self._file.parent / folder_files.CONFIG)
        default = config.get("add_bos_token", True)  # as Llama 2's, whose format this is
        self._add_bos = None if add_bos in (None, bool(default)) else add_bos
        self.prefix: tuple[int, ...] = (bos,) if (default if add_bos is None else add_bos) else ()
        self.suffix: tuple[int, ...] = (self.eos_id,) if config.get("add_eos_token") is True else ()
        self.end_ids: tuple[int, ...] = tuple(sorted({self.eos_id, *folder_files.end_ids(self._file.parent)}))
        self.fingerprint = hashlib.sha256(data).hexdigest()
        # Its own sign for a space, met in a text, would come back as a space: it is spelt in bytes, if
        # the model has them and takes text as it is.
        spelt = [self._processor.piece_to_id(f"<0x{byte:02X}>") for byte in SPACE.encode()]
        exact = all(map(self._processor.is_byte, spelt)) and self._processor.normalize("a") == "a"
        self._spelt = spelt if exact else None
        pieces = map(self._processor.id_to_piece, range(self.vocab_size))
        self._symbols = {p: i for i, p in enumerate(pieces) if self._processor.is_control(i)}
        self.symbols: tuple[str, ...] = tuple(self._symbols)

    @functools.cached_property
    def chat(self) -> ChatFormat:
        spelt = {"bos_token": self._processor.bos_id(), "eos_token": self.eos_id}
        spare = {name: self._processor.id_to_piece(i) for name, i in spelt.items()}
        return ChatFormat(self._file.parent, self.token_id, spare)

    def __reduce__(self):
        return SentencePiece, (self._file, self._add_bos)

    def encode(self, text: str) -> np.ndarray:
        with panics.as_errors(f"{self._file} cannot encode a text", "correct the text, or use another tokenizer"):
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

    def encode_placed(self, text: str, *, symbols: bool) -> tuple[np.ndarray, np.ndarray]:
        parts = re.split("(" + "|".join(map(re.escape, self._symbols)) + ")", text) if symbols else [text]
        ids: list[int] = []
        places: list[tuple[int, int]] = []
        at = 0
        for index, part in enumerate(parts):
            found, held = ([self._symbols[part]], [(0, len(part))]) if index % 2 else self._placed(part)
            ids += found
            places += [(at + begin, at + end) for begin, end in held]
            at += len(part)
        return np.asarray(ids, np.int32), np.asarray(places, np.int32).reshape(-1, 2)

    def _placed(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Ids of a text, and the letters that each holds a part of; pieces count bytes."""
        places: list[tuple[int, int]] = []
        at = 0
        for index, part in enumerate([text] if self._spelt is None else text.split(SPACE)):
            if index:
                places += [(at - 1, at)] * len(self._spelt or ())
            letters = np.repeat(np.arange(len(part) + 1), [*(len(letter.encode()) for letter in part), 1])
            end = 0
            for piece in self._processor.encode(part, return_type="proto").pieces:
                # Letters without a piece of their own are in bytes, all of which say that they begin with the first.
                byte = self._processor.is_byte(piece.id)
                begin, end = (max(piece.begin, end), max(piece.begin, end) + 1) if byte else (piece.begin, piece.end)
                held = np.minimum([begin, max(end - 1, begin)], len(letters) - 1)
                places.append((at + int(letters[held[0]]), at + min(int(letters[held[1]]) + 1, len(part))))
            at += len(part) + 1
        return self.encode(text).tolist(), places

    def decode(self, ids: Iterable[int]) -> str:
        # A model's vocabulary may be padded beyond the tokenizer's.
        known = [i for i in map(int, ids) if 0 <= i < self.vocab_size and not self._processor.is_control(i)]
        with panics.as_errors(f"{self._file} cannot decode"):
            return self._processor.decode(known)

    def symbol(self, identity: int) -> str:
        """The spelling of a control symbol."""
        return self._processor.id_to_piece(identity)

    def token_id(self, piece: str) -> int | None:
        index = self._processor.piece_to_id(piece)
        return None if index == self._processor.unk_id() else index

    def save(self, folder: pathlib.Path) -> None:
        target = folder / FILE
        if target.resolve() == self._file.resolve():
            return
        files = folder_files.companions(self._file.parent)
        if self._add_bos is not None:
            config = folder_files.read_json(self._file.parent / folder_files.CONFIG) | {"add_bos_token": self._add_bos}
            files[folder_files.CONFIG] = json.dumps(config, ensure_ascii=False, indent=2).encode()
        for name, content in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            hugging_face.write(folder / name, content)
        hugging_face.write(target, self._file.read_bytes())


def _check(data: bytes, file: pathlib.Path) -> None:
    """Raises UserError for a model whose character maps would make the library read outside of them."""
    proto = parse(data)
    for spec in (proto.normalizer_spec, proto.denormalizer_spec):
        if spec.precompiled_charsmap and not charsmap.sound(spec.precompiled_charsmap):
            raise UserError(f"{file} is damaged: its character map points outside itself: fetch it again")


def parse(data: bytes) -> Any:
    """The message in a `.model` file (sentencepiece_model.proto).

    Raises:
      google.protobuf.message.DecodeError: it is none.
    """
    from sentencepiece import sentencepiece_model_pb2

    return sentencepiece_model_pb2.ModelProto.FromString(data)  # ty: ignore[missing-attribute]  made at run time
