"""Tokenizers of a `tokenizer.json`, which give the ids that transformers gives of the same folder."""

import base64
import functools
import hashlib
import json
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from kanana_jax.data.tokens import charsmap, panics, specials
from kanana_jax.data.tokens import folder as folder_files
from kanana_jax.data.tokens.chat_format import ChatFormat
from kanana_jax.data.tokens.folder import CONFIG, FILE, read_json
from kanana_jax.errors import ConfigError, UserError
from kanana_jax.files import stage_down, whole_file

SOURCE_KEY = "sentencepiece_sha256"  # in tokenizer_config.json: the vocabulary that `tokenizer.json` was made from
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized")
_PROBES = ("", "a", " a  b\n", "3.14 <s>", "가\u1100\u1161 漢字 e\u0301\u200b\x00", "👍🏽\ufffd\u2581" * 40, "\r\n\t ")


class HuggingFace:
    """A folder with `tokenizer.json`; the files beside it say the rest.

    The tokens around a text are those of the file's post-processor: transformers 5 does not read
    `add_bos_token` where there is a `tokenizer.json`.

    Args:
      add_bos: overrides whether BOS precedes a text.

    Raises:
      UserError: the file is damaged, or would make the library fail.
      ConfigError: `add_bos` for a tokenizer without BOS.
    """

    def __init__(self, folder: pathlib.Path, add_bos: bool | None = None):
        self._folder = stage_down(folder, folder_files.belongs)
        self._file = self._folder / FILE
        data = self._file.read_bytes()
        self._config = read_json(self._folder / CONFIG)
        self._tokenizer = _load(self._file, data, self._config, symbols_are_text=True)
        # Ids may have gaps, so this is not the number of pieces.
        self.vocab_size = max(self._tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1
        named = folder_files.named_tokens(self._folder)
        self.bos_id, self.eos_id = self._special("bos_token", named), self._end(named)
        self.end_ids = tuple(sorted({self.eos_id, *folder_files.end_ids(self._folder)}))
        added = self._tokenizer.get_added_tokens_decoder().values()
        self.symbols = tuple(token.content for token in added if token.special and token.content)
        self.prefix, self.suffix = self._around()
        self._add_bos = None if add_bos in (None, self.bos_id in self.prefix) else add_bos
        if self._add_bos is not None:
            if self.bos_id is None:
                raise ConfigError(f"{folder} has no BOS that could be added: leave out add_bos")
            self.prefix = (self.bos_id,) if add_bos else tuple(i for i in self.prefix if i != self.bos_id)
        source = self._config.get(SOURCE_KEY)
        self.fingerprint = source if isinstance(source, str) else hashlib.sha256(data).hexdigest()

    def _around(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The ids that the post-processor puts before and after a text."""
        for probe in ("a", "0", ""):
            plain = self._tokenizer.encode(probe, add_special_tokens=False).ids
            whole = self._tokenizer.encode(probe, add_special_tokens=True).ids
            places = [i for i in range(len(whole) - len(plain) + 1) if whole[i : i + len(plain)] == plain]
            if places and plain:
                return tuple(whole[: places[0]]), tuple(whole[places[0] + len(plain) :])
        return tuple(i for i in whole if i != self.eos_id), tuple(i for i in whole if i == self.eos_id)

    def _special(self, name: str, named: dict[str, str | None]) -> int | None:
        """The id of `bos_token` or `eos_token`, None if the folder says that it has none."""
        piece = named.get(name)
        if name in named and piece is None:
            return None
        identity = None if piece is None else self._tokenizer.token_to_id(piece)
        if identity is not None:
            return identity
        for file in ("config.json", folder_files.GENERATION):
            value = read_json(self._folder / file).get(f"{name}_id")
            value = value[0] if isinstance(value, list) and value else value
            if isinstance(value, int):
                if not 0 <= value < self.vocab_size:
                    raise UserError(
                        f"{self._folder / file}: {name}_id {value} is outside the vocabulary of {self.vocab_size}: "
                        f"name its {name} in {CONFIG}"
                    )
                return value
        return None

    def _end(self, named: dict[str, str | None]) -> int:
        found = self._special("eos_token", named)
        if found is None:
            raise UserError(f"{self._folder} does not name its eos_token: add it to {CONFIG}")
        return found

    @functools.cached_property
    def chat(self) -> ChatFormat:
        spelt = {"bos_token": self.bos_id, "eos_token": self.eos_id}
        spare = {name: self._tokenizer.id_to_token(i) for name, i in spelt.items() if i is not None}
        return ChatFormat(self._folder, self.token_id, spare)

    def __reduce__(self):
        return HuggingFace, (self._folder, self._add_bos)

    def encode(self, text: str) -> np.ndarray:
        return self._ids(self._tokenizer, text)

    def _ids(self, tokenizer: Any, text: str) -> np.ndarray:
        with self._told("cannot encode a text"):
            text.encode()  # half a surrogate pair is reported with its position
            return np.asarray(tokenizer.encode(text, add_special_tokens=False).ids, np.int32)

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        with self._told("cannot encode a text"):
            "".join(texts).encode()
            encodings = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [np.asarray(e.ids, np.int32) for e in encodings]

    def encode_with_symbols(self, text: str) -> np.ndarray:
        return self._ids(self._with_symbols, text)

    def encode_placed(self, text: str, *, symbols: bool) -> tuple[np.ndarray, np.ndarray]:
        with self._told("cannot encode a text"):
            text.encode()
            tokenizer = self._with_symbols if symbols else self._tokenizer
            found = tokenizer.encode(text, add_special_tokens=False)
        return np.asarray(found.ids, np.int32), np.asarray(found.offsets, np.int32).reshape(-1, 2)

    @functools.cached_property
    def _with_symbols(self) -> Any:
        return _load(self._file, self._file.read_bytes(), self._config, symbols_are_text=False)

    def decode(self, ids: Iterable[int]) -> str:
        # A model's vocabulary may be padded beyond the tokenizer's.
        known = [i for i in map(int, ids) if 0 <= i < self.vocab_size]
        with self._told("cannot decode"):
            return self._tokenizer.decode(known, skip_special_tokens=True)

    def token_id(self, piece: str) -> int | None:
        return self._tokenizer.token_to_id(piece)

    def definition(self) -> dict[str, Any]:
        """The object in `tokenizer.json`."""
        return json.loads(self._file.read_bytes())

    def added(self) -> dict[int, tuple[str, bool]]:
        """Spelling of each added token, and whether it is special."""
        return {i: (t.content, t.special) for i, t in self._tokenizer.get_added_tokens_decoder().items()}

    def _told(self, what: str):
        return panics.as_errors(f"the tokenizer {self._file} {what}", "correct the text, or use another tokenizer")

    def save(self, folder: pathlib.Path) -> None:
        if folder.resolve() == self._folder.resolve():
            return
        files = folder_files.companions(self._folder)
        # BOS and EOS may come from the model's config.json, which does not travel with the tokenizer.
        names = {"bos_token": self.bos_id, "eos_token": self.eos_id}
        config = self._config | {
            name: self._tokenizer.id_to_token(i)
            for name, i in names.items()
            if i is not None and self._config.get(name) is None
        }
        data = self._file.read_bytes()
        if self._add_bos is not None:  # the folder says what its model is trained with; the vocabulary is the same
            data = self._processed(data)
            config |= {"add_bos_token": self._add_bos, SOURCE_KEY: self.fingerprint}
        if config != self._config:
            files[CONFIG] = json.dumps(config, ensure_ascii=False, indent=2).encode()
        for name, content in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            write(folder / name, content)
        write(folder / FILE, data)  # last: it makes the folder a tokenizer

    def _processed(self, data: bytes) -> bytes:
        """`tokenizer.json` with `prefix` and `suffix` as what its post-processor adds."""
        definition = json.loads(data)
        spelt = [[(self._tokenizer.id_to_token(i), i) for i in ids] for ids in (self.prefix, self.suffix)]
        definition["post_processor"] = specials.around(*spelt) if any(spelt) else None
        return json.dumps(definition, ensure_ascii=False, indent=1).encode()


def _load(file: pathlib.Path, data: bytes, config: dict[str, Any], *, symbols_are_text: bool) -> Any:
    """The library's tokenizer, tried once, so that a failure is reported here."""
    import tokenizers

    with panics.as_errors(f"{file} is not a Hugging Face tokenizer"), panics.quiet():
        text = data.decode("utf-8")
        _check(json.loads(text), file)
        found = tokenizers.Tokenizer.from_str(text)
        found.no_truncation()
        found.no_padding()
        _add_tokens(found, config)
        # Special tokens inside a document are text, never control.
        found.encode_special_tokens = symbols_are_text
        size = max(found.get_vocab(with_added_tokens=True).values(), default=-1) + 1
        if size >= 2**31:
            raise UserError(f"{file} has the id {size - 1}, beyond the largest possible vocabulary: fetch it again")
        for probe in _PROBES:
            found.decode(found.encode(probe, add_special_tokens=False).ids)
    return found


def _add_tokens(found: Any, config: dict[str, Any]) -> None:
    """Adds the tokens that only `tokenizer_config.json` has, as transformers does.

    Tokens of `added_tokens_decoder` that are not there, or are matched in another way; and named and extra tokens of
    the vocabulary, which are so made special.
    """
    import tokenizers

    known = {repr(token) for token in found.get_added_tokens_decoder().values()}
    decoder = config.get("added_tokens_decoder") or {}
    added = {int(index): tokenizers.AddedToken(**token) for index, token in decoder.items()}
    new = [token for _, token in sorted(added.items()) if repr(token) not in known]
    spelt = {token.content for token in (*found.get_added_tokens_decoder().values(), *new)}
    extra = config.get("extra_special_tokens") or config.get("additional_special_tokens") or []
    extra = list(extra.values()) if isinstance(extra, dict) else extra
    for value in (*(config.get(name) for name in folder_files.NAMES), *extra):
        piece = value.get("content") if isinstance(value, dict) else value
        if isinstance(piece, str) and piece and piece not in spelt and found.token_to_id(piece) is not None:
            flags = {k: v for k, v in value.items() if k in _FLAGS} if isinstance(value, dict) else {}
            new.append(tokenizers.AddedToken(piece, **flags, special=True))
            spelt.add(piece)
    found.add_tokens(new)


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
