"""Training a SentencePiece vocabulary (arXiv:1808.06226) that is fair to every language."""

import dataclasses
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal

from kanana_jax.data.tokens.tokenizer import SentencePiece
from kanana_jax.errors import UserError

# Control symbols cannot come out of text. The names are Llama 3's, so that one chat template serves both.
CONTROL = (
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<|mask|>",
    *(f"<|reserved_{i}|>" for i in range(4)),
)


MAX_LINE_BYTES = 16384  # SentencePiece leaves longer lines out


@dataclasses.dataclass(frozen=True)
class TokenizerConfig:
    """A vocabulary: a trained one (`path`), or one to train on the recipe's own sources.

    Attributes:
      path: folder or file of an existing tokenizer; empty: train.
      vocab_size: pieces, with the 256 bytes and the control symbols.
      model_type: `unigram` or `bpe`.
      train_bytes: text used, all languages together.
      shares: share of the text by language; empty: equal parts.
    """

    path: str = ""
    vocab_size: int = 4096
    model_type: Literal["unigram", "bpe"] = "unigram"
    train_bytes: int = 10_000_000
    shares: dict[str, float] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        if not self.path and self.vocab_size < 300:
            raise ValueError("vocab_size must be at least 300: 256 bytes and the symbols come first")
        if any(share < 0 for share in self.shares.values()) or (self.shares and not sum(self.shares.values())):
            raise ValueError("shares must not be negative, and not all 0")


def train_sentencepiece(
    texts: Mapping[str, Iterable[str]], config: TokenizerConfig, folder: pathlib.Path
) -> SentencePiece:
    """Trains on `texts` by language and writes `tokenizer.model` into `folder`.

    Exact on any text: byte fallback, no normalisation, no added or removed spaces. One thread, so that
    the same input gives the same bytes.

    Raises:
      UserError: a language without text, or too little text for the vocabulary.
    """
    import sentencepiece

    shares = dict(config.shares) or dict.fromkeys(texts, 1.0)
    missing = set(shares) - set(texts)
    if missing:
        raise UserError(f"tokenizer.shares names '{min(missing)}', but no source has that language")
    total = sum(shares.values())
    budgets = {lang: config.train_bytes * share / total for lang, share in shares.items()}
    folder.mkdir(parents=True, exist_ok=True)
    # A leading dot: what a killed run leaves must not look like a tokenizer.
    temporary = folder / f".tokenizer.{os.getpid()}.partial"
    refused: list[UserError] = []

    def lines() -> Iterator[str]:
        try:
            yield from _lines(texts, budgets)
        except UserError as error:  # SentencePiece would hide it in one of its own
            refused.append(error)

    try:
        with temporary.open("wb") as model:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=lines(),
                model_writer=model,
                model_type=config.model_type,
                vocab_size=config.vocab_size,
                character_coverage=0.9995,
                byte_fallback=True,
                split_digits=True,
                normalization_rule_name="identity",
                remove_extra_whitespaces=False,
                add_dummy_prefix=False,
                allow_whitespace_only_pieces=True,
                user_defined_symbols=["\n"],
                control_symbols=list(CONTROL),
                unk_id=0,
                bos_id=1,
                eos_id=2,
                pad_id=3,
                max_sentence_length=MAX_LINE_BYTES,
                num_threads=1,
                minloglevel=2,
            )
        if refused:
            raise refused[0]
        os.replace(temporary, folder / "tokenizer.model")
    except RuntimeError as error:
        if refused:
            raise refused[0] from None
        raise UserError(
            f"the tokenizer cannot be trained with vocab_size {config.vocab_size} "
            f"({str(error).strip().splitlines()[-1][-160:]}): change the vocabulary size or give more text"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
    return SentencePiece(folder / "tokenizer.model")


def _lines(texts: Mapping[str, Iterable[str]], budgets: Mapping[str, float]) -> Iterator[str]:
    """Lines of every language up to its budget of bytes; a language with too little text is repeated."""
    for lang, budget in budgets.items():
        used, passes = 0.0, 0
        while used < budget and passes < 20:
            before = used
            for text in texts[lang]:
                for line in _short_lines(text):
                    if line and used < budget:
                        used += len(line.encode()) + 1
                        yield line
                if used >= budget:
                    break
            passes += 1
            if used == before:
                raise UserError(f"language '{lang}' has no text to train the tokenizer on")


def _short_lines(text: str) -> Iterator[str]:
    """The lines of a text, those beyond SentencePiece's limit in pieces."""
    for line in text.split("\n"):
        if len(line.encode()) <= MAX_LINE_BYTES:
            yield line
        else:
            step = MAX_LINE_BYTES // 4  # no character has more bytes in UTF-8
            yield from (line[start : start + step] for start in range(0, len(line), step))
