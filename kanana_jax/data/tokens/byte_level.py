"""Training a byte-level BPE (arXiv:1508.07909; bytes: GPT-2) with the pre-tokenizer of Llama 3.

llama.cpp knows this pre-tokenizer by the name `llama-bpe`: letters with one sign before them, up to three digits, runs
of signs, line ends and blanks. Every byte is a piece, so any text has ids, and nothing is normalised.
"""

import json
from collections.abc import Iterable
from typing import Any

from kanana_jax.data.tokens import specials
from kanana_jax.errors import UserError

PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
# 16 syllables or characters of Korean or Japanese: Japanese writes no blanks, and whole phrases are no words.
MAX_PIECE_BYTES = 48


def train(texts: Iterable[str], vocab_size: int, *, bars: bool = False) -> dict[str, bytes]:
    """The files of a tokenizer folder, `tokenizer.json` last.

    The same texts give the same bytes, whatever the number of threads. Pieces come first, special tokens after them.

    Args:
      bars: show the trainer's phases on a terminal, with the time left.

    Raises:
      UserError: too little text for the vocabulary.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    bpe = Tokenizer(models.BPE(ignore_merges=True))
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    names = (*specials.LLAMA_3.all(), *specials.CONTROL)
    wanted = vocab_size - len(names)
    trainer = trainers.BpeTrainer(
        vocab_size=wanted,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        max_token_length=MAX_PIECE_BYTES,
        show_progress=bars,
    )
    bpe.train_from_iterator(texts, trainer)
    if bpe.get_vocab_size() < wanted:
        raise UserError(
            f"the tokenizer cannot be trained with vocab_size {vocab_size}: the text gives only "
            f"{bpe.get_vocab_size() + len(names)} pieces: lower tokenizer.vocab_size or give more text"
        )
    ids = {name: wanted + i for i, name in enumerate(names)}
    definition: dict[str, Any] = json.loads(bpe.to_str())
    definition["added_tokens"] = [specials.added_token(i, name) for name, i in ids.items()]
    definition["post_processor"] = specials.bos_template(specials.LLAMA_3.bos, ids[specials.LLAMA_3.bos])
    files = specials.companions(specials.LLAMA_3, ids)
    files["tokenizer.json"] = json.dumps(definition, ensure_ascii=False, indent=1).encode()
    return files
