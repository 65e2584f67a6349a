"""Training a vocabulary that is fair to every language: a byte-level BPE, or SentencePiece's Unigram."""

import dataclasses
import io
import math
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Literal

from kanana_jax import languages
from kanana_jax.data.tokens import byte_level, conversion, hugging_face, specials
from kanana_jax.data.tokens.hugging_face import HuggingFace
from kanana_jax.errors import UserError

MAX_PASSES = 20  # over a language that has too little text
MAX_LINE_BYTES = 16384  # SentencePiece leaves longer lines out
# All that can be typed on an American keyboard: special tokens are spelt so, and a spelling in a text must stay text.
_ASCII = "".join(map(chr, range(0x21, 0x7F)))


@dataclasses.dataclass(frozen=True)
class TokenizerConfig:
    """A vocabulary: a trained one (`path`), or one to train on the recipe's own sources.

    Attributes:
      path: folder or file of an existing tokenizer; empty: train.
      add_bos: whether BOS precedes a document and a prompt; None: as in the folder of `path`. The workdir's
        tokenizer, and so every model of the run, then says the same.
      vocab_size: pieces, with the 256 bytes and the special tokens.
      model_type: `bpe`: of bytes, with Llama 3's pre-tokenizer, which llama.cpp knows too; `unigram`: SentencePiece's
        (arXiv:1804.10959), whose pieces may hold spaces; llama.cpp has no such tokenizer for Llama models.
      train_bytes: text used, all languages together.
      shares: share of the text by language; empty: equal parts.
    """

    path: str = ""
    add_bos: bool | None = None
    vocab_size: int = 4096
    model_type: Literal["bpe", "unigram"] = "bpe"
    train_bytes: int = 10_000_000
    shares: dict[str, float] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        object.__setattr__(self, "shares", {languages.tag(lang): share for lang, share in self.shares.items()})
        if not self.path and self.vocab_size < 300:
            raise ValueError("vocab_size must be at least 300: 256 bytes and the special tokens come first")
        if self.add_bos is not None and not self.path:
            raise ValueError("add_bos is for an existing tokenizer (path): a new one puts BOS before a text")
        if self.train_bytes <= 0:
            raise ValueError("train_bytes must be positive")
        if any(share < 0 for share in self.shares.values()) or (self.shares and not sum(self.shares.values())):
            raise ValueError("shares must not be negative, and not all 0")


def sizes(
    texts: Mapping[str, Iterable[str]], config: TokenizerConfig, tell: Callable[[str, int, int], None]
) -> dict[str, int]:
    """Bytes of text that each language has, counted as far as its budget.

    Args:
      tell: called with a language, the bytes counted so far and its budget.

    Raises:
      UserError: a share names a language that is not there.
    """
    found = {}
    for lang, budget in _budgets(texts, config).items():
        found[lang] = 0
        for text in texts[lang]:
            found[lang] += len(text.encode("utf-8", "surrogatepass")) + bool(text)
            tell(lang, min(found[lang], int(budget)), int(budget))
            if found[lang] >= budget:
                break
    return found


def without_repeats(config: TokenizerConfig, sizes: Mapping[str, int]) -> TokenizerConfig:
    """A config that trains on what is there: the language with the most text for its share is read once.

    Languages with less are repeated as far as the shares ask; a share of 0 asks for nothing.
    """
    shares = config.shares or dict.fromkeys(sizes, 1.0)
    total = sum(shares.values())
    there = max((math.ceil(size * total / shares[lang]) for lang, size in sizes.items() if shares[lang]), default=0)
    return dataclasses.replace(config, train_bytes=max(min(config.train_bytes, there), 1))


def train_tokenizer(
    texts: Mapping[str, Iterable[str]], config: TokenizerConfig, folder: pathlib.Path, *, bars: bool = False
) -> HuggingFace:
    """Trains on `texts` by language and writes `tokenizer.json`, and what other tools need beside it, into `folder`.

    Exact on any text: byte fallback, no normalisation, no added or removed spaces. The same input gives the same bytes.

    Args:
      bars: show the phases of a BPE's training on a terminal; SentencePiece shows none.

    Raises:
      UserError: a language without text, or too little text for the vocabulary.
    """
    chosen = _within(texts, _budgets(texts, config))
    if config.model_type == "bpe":
        files = byte_level.train(chosen, config.vocab_size, bars=bars)
    else:
        files = conversion.convert(_train_unigram(chosen, config.vocab_size))
    for name, data in files.items():  # `tokenizer.json`, which makes the folder a tokenizer, comes last
        hugging_face.write(folder / name, data)
    return HuggingFace(folder)


def _budgets(texts: Mapping[str, Iterable[str]], config: TokenizerConfig) -> dict[str, float]:
    """Bytes of text to train on by language."""
    shares = dict(config.shares) or dict.fromkeys(texts, 1.0)
    missing = set(shares) - set(texts)
    if missing:
        raise UserError(f"tokenizer.shares names '{min(missing)}', but no source has that language")
    total = sum(shares.values())
    return {lang: config.train_bytes * share / total for lang, share in shares.items()}


def _train_unigram(texts: Iterator[str], vocab_size: int) -> bytes:
    """A SentencePiece model, trained by one thread, so that the same input gives the same bytes."""
    import sentencepiece

    refused: list[UserError] = []

    def lines() -> Iterator[str]:
        try:
            for text in texts:
                yield from filter(None, _short_lines(text))
        except UserError as error:  # SentencePiece would hide it in one of its own
            refused.append(error)

    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=lines(),
            model_writer=model,
            model_type="unigram",
            vocab_size=vocab_size,
            character_coverage=0.9995,
            required_chars=_ASCII,
            byte_fallback=True,
            split_digits=True,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            add_dummy_prefix=False,
            allow_whitespace_only_pieces=True,
            user_defined_symbols=["\n"],
            control_symbols=list(specials.CONTROL),
            unk_id=0,
            bos_id=1,
            eos_id=2,
            pad_id=3,
            max_sentence_length=MAX_LINE_BYTES,
            num_threads=1,
            minloglevel=2,
        )
    except RuntimeError as error:
        if refused:
            raise refused[0] from None
        raise UserError(
            f"the tokenizer cannot be trained with vocab_size {vocab_size} "
            f"({str(error).strip().splitlines()[-1][-160:]}): change the vocabulary size or give more text"
        ) from error
    if refused:
        raise refused[0]
    return model.getvalue()


def _within(texts: Mapping[str, Iterable[str]], budgets: Mapping[str, float]) -> Iterator[str]:
    """Texts of every language up to its budget of bytes; a language with too little text is repeated."""
    for lang, budget in budgets.items():
        used, passes = 0.0, 0
        while used < budget and passes < MAX_PASSES:
            before = used
            for text in texts[lang]:
                if used >= budget:
                    break
                part = _beginning(text, int(budget - used) + 1)
                used += len(part.encode()) + bool(part)
                if part:
                    yield part
            passes += 1
            if used == before:
                raise UserError(f"language '{lang}' has no text to train the tokenizer on")


def _beginning(text: str, size: int) -> str:
    """The first `size` bytes of a text, to a whole character."""
    if len(text) * 4 <= size:  # no character has more bytes in UTF-8
        return text
    return text[:size].encode()[:size].decode(errors="ignore")


def _short_lines(text: str) -> Iterator[str]:
    """The lines of a text, those beyond SentencePiece's limit in pieces."""
    for line in text.split("\n"):
        if len(line.encode()) <= MAX_LINE_BYTES:
            yield line
        else:
            step = MAX_LINE_BYTES // 4
            yield from (line[start : start + step] for start in range(0, len(line), step))
