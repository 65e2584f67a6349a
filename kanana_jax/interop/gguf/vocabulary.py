"""Conversion of a tokenizer folder to llama.cpp's vocabulary: pieces, their kinds, merges or scores, pre-tokenizer.

llama.cpp identifies pre-tokenizers by name. The name is found by comparing the steps in the folder's `tokenizer.json`
with those of llama.cpp (`src/llama-vocab.cpp`); a tokenizer with other steps is refused.
"""

import json
import logging
import pathlib
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from kanana_jax.data.tokens import byte_level, panics, sentence_piece
from kanana_jax.data.tokens.folder import FILE
from kanana_jax.data.tokens.hugging_face import HuggingFace
from kanana_jax.data.tokens.sentence_piece import SPACE, SentencePiece
from kanana_jax.data.tokens.tokenizer import Tokenizer, load_tokenizer
from kanana_jax.errors import UserError

log = logging.getLogger("kanana")
# Kinds of tokens, with SentencePiece's numbers.
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_SIGNS = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_QWEN2 = rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}|{_SIGNS}"
_QWEN35 = (
    rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_GPT4O = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+{_CONTRACTIONS}?|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*{_CONTRACTIONS}?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# Regular expressions that split a text one after the other, and `ignore_merges` → name of the pre-tokenizer.
_NAMES = {
    ((byte_level.PATTERN,), True): "llama-bpe",
    ((byte_level.PATTERN,), False): "smaug-bpe",
    ((_QWEN2,), False): "qwen2",
    ((_QWEN35,), False): "qwen35",
    ((_GPT2,), False): "gpt-2",
    ((r"\p{N}", _GPT2), False): "smollm",
    ((_GPT4O,), False): "gpt-4o",
}
_INEXACT = {"gpt-4o": "words with letters beyond a–z that bear marks, or mix upper and lower case,"}


class Entry(NamedTuple):
    """One token: its spelling, its kind, and for SentencePiece its score."""

    piece: str
    kind: int
    score: float = 0.0


class Vocabulary(NamedTuple):
    """The entries `tokenizer.ggml.*` of a GGUF file.

    Attributes:
      model: `gpt2` (byte-level BPE) or `llama` (SentencePiece BPE).
      pre: name of the pre-tokenizer; `default` for SentencePiece.
      entries: one token per row of the embedding.
      merges: merges of `gpt2`, best first.
      space_prefix: whether a space is added before a text; None: the key is not written.
      tokenizer: the tokenizer that it was read from.
    """

    model: str
    pre: str
    entries: tuple[Entry, ...]
    merges: tuple[str, ...]
    space_prefix: bool | None
    tokenizer: Tokenizer


def read(folder: pathlib.Path, rows: int) -> Vocabulary:
    """The vocabulary of a model folder.

    Args:
      rows: number of rows of the embedding; those beyond the tokenizer's vocabulary are marked as unused.

    Raises:
      UserError: there is no tokenizer, or llama.cpp would tokenize texts differently.
    """
    tokenizer = load_tokenizer(folder)
    if tokenizer.prefix not in ((), (tokenizer.bos_id,)) or tokenizer.suffix not in ((), (tokenizer.eos_id,)):
        raise _refusal(folder, "it puts tokens other than BOS and EOS around a text")
    if tokenizer.vocab_size > rows:
        raise UserError(f"{folder}: the tokenizer has {tokenizer.vocab_size} tokens, the model {rows}")
    model, added = folder / sentence_piece.FILE, {}
    if isinstance(tokenizer, HuggingFace):
        definition, added = tokenizer.definition(), tokenizer.added()
        if (definition.get("model") or {}).get("byte_fallback") is not True:
            found = _byte_level(folder / FILE, definition)
        elif model.is_file():
            SentencePiece(model)  # refuses a damaged file
            found = _sentence_piece(model)
        else:
            found = _fallback_bpe(folder / FILE, definition)
    else:
        found = _sentence_piece(model)
    for index, (piece, special) in added.items():
        score = found.entries[index].score if index in found.entries else 0.0
        found.entries[index] = Entry(piece, CONTROL if special else USER_DEFINED, score)
    entries = tuple(_filled(found.entries, rows))
    return Vocabulary(found.model, found.pre, entries, found.merges, found.space_prefix, tokenizer)


class _Found(NamedTuple):
    """Fields of `Vocabulary`, with entries by token id."""

    model: str
    pre: str
    entries: dict[int, Entry]
    merges: tuple[str, ...] = ()
    space_prefix: bool | None = None


def _filled(entries: dict[int, Entry], rows: int) -> Iterator[Entry]:
    """Yields an entry for every row; unused rows get names that no piece has."""
    taken = {entry.piece for entry in entries.values()}
    for index in range(rows):
        name = f"[unused_{index}]"
        while name in taken:
            name += "_"
        yield entries.get(index, Entry(name, UNUSED))


def _refusal(where: pathlib.Path, why: str) -> UserError:
    return UserError(f"{where}: llama.cpp would tokenize texts differently: {why}, so no GGUF is written")


def _byte_level(file: pathlib.Path, definition: dict[str, Any]) -> _Found:
    model = definition.get("model") or {}
    if model.get("type") != "BPE":
        raise _refusal(file, f"its model is {model.get('type')}")
    for key in ("continuing_subword_prefix", "end_of_word_suffix", "dropout"):
        if model.get(key):
            raise _refusal(file, f"its BPE has a {key}")
    steps, whole_words = tuple(_steps(definition.get("pre_tokenizer"), file)), model.get("ignore_merges") is True
    pre = _NAMES.get((steps, whole_words))
    if pre is None:
        how = f" and ignore_merges {whole_words}".lower() if any(steps == known for known, _ in _NAMES) else ""
        raise _refusal(file, f"llama.cpp has no pre-tokenizer with its expressions{how}")
    normalizer = definition.get("normalizer")
    if normalizer is not None and normalizer.get("type") != "NFC":
        raise _refusal(file, f"its normalizer is {normalizer.get('type')}")
    if normalizer is not None:
        log.warning("%s: llama.cpp does not normalise text to NFC, as this tokenizer does: give it text in NFC", file)
    if pre in _INEXACT:
        log.warning("%s: llama.cpp tokenizes %s differently from this tokenizer", file, _INEXACT[pre])
    vocab: dict[str, int] = model.get("vocab") or {}
    if not vocab.keys() >= set(_letters()):
        if model.get("unk_token") is not None:
            raise _refusal(file, f"bytes without a piece become {model['unk_token']}")
        log.warning("%s: bytes without a piece are dropped; llama.cpp may tokenize text around them differently", file)
    merges = (merge if isinstance(merge, str) else " ".join(merge) for merge in model.get("merges") or [])
    return _Found("gpt2", pre, {index: Entry(piece, NORMAL) for piece, index in vocab.items()}, tuple(merges))


def _letters() -> list[str]:
    from tokenizers import pre_tokenizers

    return pre_tokenizers.ByteLevel.alphabet()


def _steps(part: Any, file: pathlib.Path) -> Iterator[str]:
    """Yields the regular expressions with which a byte-level pre-tokenizer splits a text, in order."""
    parts = part.get("pretokenizers", []) if isinstance(part, dict) and part.get("type") == "Sequence" else [part]
    for place, step in enumerate(parts):
        kind = step.get("type") if isinstance(step, dict) else None
        if (kind == "ByteLevel") != (place == len(parts) - 1):
            raise _refusal(file, "its pre-tokenizer does not end in bytes")
        if kind == "ByteLevel":
            if step.get("add_prefix_space", True):
                raise _refusal(file, "it puts a space before a text")
            if step.get("use_regex", True):
                yield _GPT2
        elif kind == "Digits" and step.get("individual_digits") is True:
            yield r"\p{N}"
        elif kind == "Split" and isinstance(step.get("pattern"), dict):
            # All known expressions match every character, so that nothing is left between matches.
            if (step.get("behavior"), bool(step.get("invert"))) not in (("Isolated", False), ("Removed", True)):
                raise _refusal(file, f"its pre-tokenizer splits with behavior {step.get('behavior')}")
            yield step["pattern"].get("Regex") or re.escape(str(step["pattern"].get("String")))
        else:
            raise _refusal(file, f"its pre-tokenizer has a step {kind}")


def _sentence_piece(file: pathlib.Path) -> _Found:
    """The pieces of a SentencePiece model, which must be BPE without normalisation."""
    with panics.as_errors(f"{file} is not a SentencePiece model"):
        proto = sentence_piece.parse(file.read_bytes())
    trainer, normal = proto.trainer_spec, proto.normalizer_spec
    for wrong, why in (
        (trainer.model_type != 2, "its model is not BPE"),
        (not trainer.byte_fallback, "it spells no unknown letters in bytes"),
        (trainer.treat_whitespace_as_suffix, "spaces are ends of pieces"),
        (normal.remove_extra_whitespaces, "it removes spaces"),
        (bool(normal.precompiled_charsmap), "it normalises texts"),
    ):
        if wrong:
            raise _refusal(file, why)
    entries = {i: Entry(p.piece, p.type, p.score) for i, p in enumerate(proto.pieces)}
    return _Found("llama", "default", entries, space_prefix=normal.add_dummy_prefix)


def _fallback_bpe(file: pathlib.Path, definition: dict[str, Any]) -> _Found:
    """The pieces of a `tokenizer.json` converted from SentencePiece BPE; a piece's score is minus its merge's rank."""
    model = definition["model"]
    if model.get("type") != "BPE":
        raise _refusal(file, f"its model is {model.get('type')}")
    prefix = _space_prefix(definition, file)
    scores: dict[str, float] = {}
    for rank, merge in enumerate(model.get("merges") or []):
        scores.setdefault("".join(merge.split(" ") if isinstance(merge, str) else merge), -float(rank))
    low = -float(len(scores)) - 1.0
    entries = {}
    known = {token["content"] for token in definition.get("added_tokens") or []}
    for piece, index in model["vocab"].items():
        byte = re.fullmatch(r"<0x[0-9A-F]{2}>", piece)
        kind = BYTE if byte else UNKNOWN if piece == model.get("unk_token") else NORMAL
        if kind == NORMAL and len(piece) > 1 and piece not in scores and piece not in known:
            raise _refusal(file, f"no merge makes its piece {json.dumps(piece, ensure_ascii=False)[:40]}")
        entries[index] = Entry(piece, kind, scores.get(piece, low))
    return _Found("llama", "default", entries, space_prefix=prefix)


def _space_prefix(definition: dict[str, Any], file: pathlib.Path) -> bool:
    """Whether a space is added before a text; refuses steps other than SentencePiece's replacement of spaces."""
    normalizer, before = definition.get("normalizer"), definition.get("pre_tokenizer")
    steps = (normalizer or {}).get("normalizers", [normalizer] if normalizer else [])
    replaced = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    prepended = {"type": "Prepend", "prepend": SPACE}
    # A split at spaces has no effect, because the normalizer has replaced them all.
    if before is None or (before.get("type") == "Split" and before.get("pattern") == {"String": " "}):
        if steps in ([replaced], [prepended, replaced]):
            return len(steps) == 2
    elif (before.get("type"), before.get("replacement"), before.get("split")) == (
        "Metaspace",
        SPACE,
        False,
    ) and not steps:
        return before.get("prepend_scheme", "always") != "never"
    raise _refusal(file, "it normalises or splits texts in another way than SentencePiece")
