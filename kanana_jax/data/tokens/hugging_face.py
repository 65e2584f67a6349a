"""Tokenizers of a `tokenizer.json`: Llama 3's, and all that are trained here."""

import base64
import functools
import hashlib
import json
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from kanana_jax.data.tokens import charsmap, panics
from kanana_jax.errors import UserError
from kanana_jax.files import stage_down, whole_file

FILE = "tokenizer.json"
CONFIG = "tokenizer_config.json"
# What else travels with a tokenizer.
COMPANIONS = (
    CONFIG,
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "generation_config.json",
)
SOURCE_KEY = "sentencepiece_sha256"  # in tokenizer_config.json: the vocabulary that `tokenizer.json` was made from
_PROBES = ("", "a", " a  b\n", "3.14 <s>", "가\u1100\u1161 漢字 e\u0301\u200b\x00", "👍🏽\ufffd\u2581" * 40, "\r\n\t ")


class HuggingFace:
    """A folder with `tokenizer.json`, and BOS and EOS from the files beside it.

    Raises:
      UserError: the file is damaged, or would make the library fail.
    """

    def __init__(self, folder: pathlib.Path):
        self._folder = stage_down(folder, {FILE, *COMPANIONS}.__contains__)
        self._file = self._folder / FILE
        data = self._file.read_bytes()
        self._tokenizer = _load(self._file, data, symbols_are_text=True)
        # Ids may have gaps, so this is not the number of pieces.
        self.vocab_size = max(self._tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1
        self.bos_id, self.eos_id = self._special("bos_token"), self._special("eos_token")
        # The template alone: `add_bos_token` beside it is not read by transformers 5 where there is a tokenizer.json.
        self.adds_bos = self._tokenizer.encode("", add_special_tokens=True).ids[:1] == [self.bos_id]
        source = read_json(self._folder / CONFIG).get(SOURCE_KEY)
        self.fingerprint = source if isinstance(source, str) else hashlib.sha256(data).hexdigest()

    def _special(self, name: str) -> int:
        for file in (CONFIG, "special_tokens_map.json"):
            value = read_json(self._folder / file).get(name)
            piece = value.get("content") if isinstance(value, dict) else value
            identity = self._tokenizer.token_to_id(piece) if isinstance(piece, str) else None
            if identity is not None:
                return identity
        for file in ("config.json", "generation_config.json"):
            value = read_json(self._folder / file).get(f"{name}_id")
            value = value[0] if isinstance(value, list) and value else value
            if isinstance(value, int):
                if not 0 <= value < self.vocab_size:
                    raise UserError(
                        f"{self._folder / file}: {name}_id {value} is outside the vocabulary of {self.vocab_size}: "
                        f"name its {name} in {CONFIG}"
                    )
                return value
        raise UserError(f"{self._folder} does not say its {name}: add it to {CONFIG}")

    def __reduce__(self):
        return HuggingFace, (self._folder,)

    def encode(self, text: str) -> np.ndarray:
        return self._ids(self._tokenizer, text)

    def _ids(self, tokenizer: Any, text: str) -> np.ndarray:
        with self._told("cannot encode a text"):
            text.encode()  # half a surrogate pair is told by its place
            return np.asarray(tokenizer.encode(text, add_special_tokens=False).ids, np.int32)

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        with self._told("cannot encode a text"):
            "".join(texts).encode()
            encodings = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [np.asarray(e.ids, np.int32) for e in encodings]

    def encode_with_symbols(self, text: str) -> np.ndarray:
        return self._ids(self._with_symbols, text)

    @functools.cached_property
    def _with_symbols(self) -> Any:
        return _load(self._file, self._file.read_bytes(), symbols_are_text=False)

    def decode(self, ids: Iterable[int]) -> str:
        # A model's vocabulary may be padded beyond the tokenizer's.
        known = [i for i in map(int, ids) if 0 <= i < self.vocab_size]
        with self._told("cannot decode"):
            return self._tokenizer.decode(known, skip_special_tokens=True)

    def token_id(self, piece: str) -> int | None:
        return self._tokenizer.token_to_id(piece)

    def _told(self, what: str):
        return panics.told(f"the tokenizer {self._file} {what}", "mend the text, or use another tokenizer")

    def save(self, folder: pathlib.Path) -> None:
        if folder.resolve() == self._folder.resolve():
            return
        for name in COMPANIONS:
            if (self._folder / name).is_file():
                write(folder / name, (self._folder / name).read_bytes())
        # BOS and EOS may come from the model's config.json, which does not travel with the tokenizer.
        before = read_json(self._folder / CONFIG)
        names = {"bos_token": self.bos_id, "eos_token": self.eos_id}
        missing = {name: self._tokenizer.id_to_token(i) for name, i in names.items() if before.get(name) is None}
        if missing:
            text = json.dumps(before | missing, ensure_ascii=False, indent=2)
            write(folder / CONFIG, text.encode())
        write(folder / FILE, self._file.read_bytes())  # last: it makes the folder a tokenizer


def _load(file: pathlib.Path, data: bytes, *, symbols_are_text: bool) -> Any:
    """The library's tokenizer, tried once, so that what makes it fail is told here."""
    import tokenizers

    with panics.told(f"{file} is not a Hugging Face tokenizer"), panics.quiet():
        text = data.decode("utf-8")
        _check(json.loads(text), file)
        found = tokenizers.Tokenizer.from_str(text)
        found.no_truncation()
        found.no_padding()
        # Special tokens inside a document are text, never control.
        found.encode_special_tokens = symbols_are_text
        size = max(found.get_vocab(with_added_tokens=True).values(), default=-1) + 1
        if size >= 2**31:
            raise UserError(f"{file} has the id {size - 1}, beyond what models can have: fetch it again")
        for probe in _PROBES:
            found.decode(found.encode(probe, add_special_tokens=False).ids)
    return found


def _check(definition: Any, file: pathlib.Path) -> None:
    """Raises UserError for parts that are known to make the library end with a panic, or never."""
    if not isinstance(definition, dict):
        raise UserError(f"{file} is not a Hugging Face tokenizer (no object): fetch it again")

    def refuse(part: str, why: str) -> UserError:
        return UserError(f"{file} is damaged: its {part} {why}: fetch it again")

    for section in ("normalizer", "pre_tokenizer", "decoder"):
        for part in _parts(definition.get(section)):
            kind = part.get("type")
            if kind == "Precompiled" and not _charsmap_is_sound(part.get("precompiled_charsmap")):
                raise refuse(section, "has a character map that leads outside of itself")
            if kind == "FixedLength" and not (isinstance(part.get("length"), int) and part["length"] > 0):
                raise refuse(section, "cuts pieces of no length")
            if kind == "Strip" and section == "decoder" and part.get("stop") != 0:
                raise refuse(section, "strips the ends of tokens, which the library does not do safely")
    model = definition.get("model")
    if isinstance(model, dict):
        pieces, merges = model.get("vocab"), model.get("merges")
        if isinstance(pieces, list) and any(isinstance(p, list) and p[:1] == [""] for p in pieces):
            raise refuse("vocabulary", "has an empty piece")
        # The library cuts as many bytes from every second part, and ends the process where they are no prefix.
        prefix = model.get("continuing_subword_prefix")
        if prefix and isinstance(merges, list) and not all(_second(merge).startswith(str(prefix)) for merge in merges):
            raise refuse("merges", f"lack the prefix {str(prefix)[:20]!r}")


def _second(merge: Any) -> str:
    """The right part of a merge, written as a pair or as a line."""
    parts = merge.split(" ") if isinstance(merge, str) else merge
    return parts[1] if isinstance(parts, list) and len(parts) == 2 and isinstance(parts[1], str) else ""


def _parts(section: Any) -> Iterator[dict[str, Any]]:
    """A component, and those inside of it."""
    waiting = [section]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            yield part
            waiting += [v for v in part.values() if isinstance(v, (dict, list))]
        elif isinstance(part, list):
            waiting += part


def _charsmap_is_sound(value: Any) -> bool:
    try:
        return charsmap.sound(base64.b64decode(value, validate=True))
    except (TypeError, ValueError):
        return False


def write(target: pathlib.Path, data: bytes) -> None:
    """Writes a file whole or not at all."""
    with whole_file(target) as temporary:
        temporary.write_bytes(data)


def read_json(file: pathlib.Path) -> dict[str, Any]:
    """The object in a file, {} where there is none."""
    if not file.is_file():
        return {}
    try:
        value = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file} is not JSON ({error}): fetch it again") from error
    if not isinstance(value, dict):
        raise UserError(f"{file} holds no JSON object: fetch it again")
    return value
