"""A SentencePiece model as a `tokenizer.json`, which other tools read without a converter of their own.

Pieces hold spaces where SentencePiece writes its own sign for them, so that this sign, met in a text, is text. Bytes,
control symbols and `<unk>` score far below every spelling of them, since the library finds them in text otherwise.
"""

import base64
import hashlib
import json
import logging
import pathlib
import re
import tempfile
from typing import Any

import numpy as np

from kanana_jax.data.tokens import hugging_face, panics, sentence_piece, specials
from kanana_jax.data.tokens.folder import CONFIG, FILE, read_json
from kanana_jax.data.tokens.hugging_face import HuggingFace
from kanana_jax.data.tokens.sentence_piece import SPACE, SentencePiece
from kanana_jax.errors import UserError

log = logging.getLogger("kanana")

# Kinds of pieces, in SentencePiece's numbers (sentencepiece_model.proto).
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _BYTE = 1, 2, 3, 4, 6
_IN_TEXT = (_NORMAL, _USER_DEFINED)
_UNIGRAM, _BPE = 1, 2
_FAR_BELOW = 1000.0
_PROBES = (
    "a",
    "  Two  spaces,\tand\n\nlines ",
    "가람시의 도서관은 2024년 5월 3일에 문을 열었다. 값은 3,000원이다.",
    "図書館は五月三日に開いた。ガラス １２３",
    "def f(x):\n    return {'a': x[0] ** 2}  # <0x41> <s> </s> <unk> <|eot_id|>",
    "👍🏽 e\u0301 \u1112\u1161\u11ab \u200b\u3000\x00 aaaaaaa \u2581 ~`^|<>{}",
)


def convert(data: bytes) -> dict[str, bytes]:
    """The files of a tokenizer folder that give a model's ids, `tokenizer.json` last.

    Raises:
      UserError: a kind of model that `tokenizer.json` does not have.
    """
    with panics.as_errors("the SentencePiece model cannot be read"):
        proto = sentence_piece.parse(data)
    kind, normal = proto.trainer_spec.model_type, proto.normalizer_spec
    if kind not in (_UNIGRAM, _BPE) or proto.trainer_spec.treat_whitespace_as_suffix or not normal.escape_whitespaces:
        raise UserError("a SentencePiece model of words, characters or with spaces at the ends has no tokenizer.json")
    pieces = [(p.piece.replace(SPACE, " ") if p.type == _NORMAL else p.piece, p.score, p.type) for p in proto.pieces]
    ids = {piece: i for i, (piece, _, type) in enumerate(pieces) if type == _CONTROL}
    unknown = next((i for i, (_, _, type) in enumerate(pieces) if type == _UNKNOWN), None)
    bos, eos = proto.trainer_spec.bos_piece, proto.trainer_spec.eos_piece
    if bos not in ids or eos not in ids or unknown is None:
        raise UserError("a SentencePiece model without <unk>, <s> or </s> has no tokenizer.json")
    pad = proto.trainer_spec.pad_piece if proto.trainer_spec.pad_piece in ids else None
    model = _unigram(pieces, unknown) if kind == _UNIGRAM else _bpe(pieces, pieces[unknown][0])
    own = [p.replace(SPACE, " ") for p, _, type in pieces if type == _USER_DEFINED]
    definition = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [specials.added_token(i, piece) for piece, i in ids.items()],
        "normalizer": _normalizer(normal),
        "pre_tokenizer": _isolated(own, _in_reach(pieces) if kind == _UNIGRAM else []),
        "post_processor": specials.bos_template(bos, ids[bos]),
        "decoder": _decoder(normal.add_dummy_prefix),
        "model": {**model, "byte_fallback": proto.trainer_spec.byte_fallback},
    }
    source = {hugging_face.SOURCE_KEY: hashlib.sha256(data).hexdigest()}
    files = specials.companions(specials.Names(bos, eos, pad), ids, **source)
    files[FILE] = json.dumps(definition, ensure_ascii=False, indent=1).encode()
    return files


def complete(folder: pathlib.Path) -> None:
    """Gives a folder that has a SentencePiece model alone a `tokenizer.json` with the same ids, where there is one.

    A Unigram's own file is then taken away: converters take it for the BPE of Llama 2, and read other ids in silence.
    """
    model, target = folder / sentence_piece.FILE, folder / FILE
    if target.is_file() or not model.is_file():
        return
    config = read_json(folder / CONFIG)
    if (folder / "added_tokens.json").is_file() or config.get("added_tokens_decoder"):
        log.warning("%s: tokens were added to %s, so no %s is written", folder, model.name, target.name)
        return
    ours = SentencePiece(model)
    try:
        files = _placed(convert(model.read_bytes()), ours)
        with tempfile.TemporaryDirectory() as place:
            for name, data in files.items():
                hugging_face.write(pathlib.Path(place) / name, data)
            theirs = HuggingFace(pathlib.Path(place))
            same = all(np.array_equal(ours.encode(text), theirs.encode(text)) for text in _PROBES)
    except UserError as error:
        log.warning("%s: no %s is written (%s)", folder, target.name, error)
        return
    if not same:
        log.warning("%s: a %s would give other ids than %s: none is written", folder, target.name, model.name)
        return
    for name, data in files.items():
        if name == CONFIG:
            kept = ("chat_template", "model_max_length", "add_bos_token", "add_eos_token")
            data = json.dumps(
                json.loads(data) | {key: config[key] for key in kept if key in config}, ensure_ascii=False, indent=2
            ).encode()
        elif name != FILE and (folder / name).is_file():
            continue
        hugging_face.write(folder / name, data)
    if json.loads(files[FILE])["model"]["type"] == "Unigram":
        model.unlink()


def _placed(files: dict[str, bytes], ours: SentencePiece) -> dict[str, bytes]:
    """The files with a post-processor that puts around a text what the folder does."""
    definition = json.loads(files[FILE])
    spelt = [[(ours.symbol(i), i) for i in ids] for ids in (ours.prefix, ours.suffix)]
    definition["post_processor"] = specials.around(*spelt) if any(spelt) else None
    return files | {FILE: json.dumps(definition, ensure_ascii=False, indent=1).encode()}


def _unigram(pieces: list[tuple[str, float, int]], unknown: int) -> dict[str, Any]:
    low = min((score for _, score, type in pieces if type in _IN_TEXT), default=0.0) - _FAR_BELOW
    vocab = [[piece, score if type in _IN_TEXT else low] for piece, score, type in pieces]
    return {"type": "Unigram", "unk_id": unknown, "vocab": vocab}


def _bpe(pieces: list[tuple[str, float, int]], unknown: str) -> dict[str, Any]:
    """Merges in the order of their results' scores; of one result's, all pairs of pieces that make it."""
    ids = {piece: i for i, (piece, _, type) in enumerate(pieces)}
    normal = {piece: (-score, i) for i, (piece, score, type) in enumerate(pieces) if type == _NORMAL}
    merges = []
    for piece, order in normal.items():
        for cut in range(1, len(piece)):
            left, right = piece[:cut], piece[cut:]
            if left in normal and right in normal:
                merges.append((order, normal[left][1], normal[right][1], [left, right]))
    merges.sort(key=lambda m: m[:3])
    options = {"dropout": None, "unk_token": unknown, "fuse_unk": True, "ignore_merges": False}
    return {"type": "BPE", **options, "vocab": ids, "merges": [pair for *_, pair in merges]}


def _normalizer(normal: Any) -> dict[str, Any] | None:
    steps: list[dict[str, Any]] = []
    if normal.precompiled_charsmap:
        if "nfkc" in normal.name:  # the library looks no character up that is longer than five bytes: Korean in parts
            steps.append({"type": "NFC"})
        steps.append(
            {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(normal.precompiled_charsmap).decode()}
        )
    if normal.remove_extra_whitespaces:
        steps.append({"type": "Strip", "strip_left": True, "strip_right": True})
        steps.append({"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "})
    if normal.add_dummy_prefix:
        steps.append({"type": "Prepend", "prepend": " "})
    if steps:
        steps.append({"type": "Replace", "pattern": {"String": SPACE}, "content": " "})
    return {"type": "Sequence", "normalizers": steps} if steps else None


def _in_reach(pieces: list[tuple[str, float, int]]) -> list[str]:
    """Pieces that no text may become, but that have a letter which is not a piece: they would be the only way."""
    letters = {piece for piece, _, type in pieces if type in _IN_TEXT and len(piece) == 1}
    return [piece for piece, _, type in pieces if type not in _IN_TEXT and not letters.issuperset(piece)]


def _isolated(own: list[str], hidden: list[str]) -> dict[str, Any] | None:
    """User-defined pieces, the longest first, are pieces wherever they are; hidden ones are cut after a letter."""
    ways = [re.escape(piece) for piece in sorted(own, key=len, reverse=True)]
    ways += [f"{re.escape(piece[0])}(?={re.escape(piece[1:])})" for piece in hidden if piece]
    if not ways:
        return None
    pattern = "|".join(ways)
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def _decoder(dummy_prefix: bool) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [{"type": "ByteFallback"}, {"type": "Fuse"}]
    if dummy_prefix:
        steps.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    return {"type": "Sequence", "decoders": steps}
