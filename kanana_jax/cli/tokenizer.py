"""The verb `tokenizer`."""

import argparse
import pathlib

from kanana_jax.cli.verbs import AddVerb
from kanana_jax.errors import ConfigError


def add_verbs(verb: AddVerb) -> None:
    """Adds `tokenizer`."""
    sub = verb(
        "tokenizer",
        _tokenizer,
        "train a vocabulary",
        "example:\n  kanana tokenizer train --input ko=docs/ko en=docs/en --output vocab --vocab-size 32000",
    )
    sub.add_argument("what", choices=("train",))
    sub.add_argument("--input", required=True, nargs="+", metavar="LANG=PATH", help="documents of each language")
    sub.add_argument("--output", required=True, type=pathlib.Path, metavar="DIR")
    sub.add_argument("--vocab-size", type=int, default=32000, metavar="N")
    sub.add_argument(
        "--model-type",
        choices=("bpe", "unigram"),
        default="bpe",
        help="bpe: of bytes, as Llama 3's; unigram: SentencePiece's",
    )
    sub.add_argument(
        "--train-bytes",
        type=int,
        default=100_000_000,
        metavar="N",
        help="bytes of text to train on, all languages together",
    )


def _tokenizer(options: argparse.Namespace, overrides: list[str], command: list[str]) -> None:
    from kanana_jax import languages
    from kanana_jax.data.read import records
    from kanana_jax.data.read.outputs import writing
    from kanana_jax.data.tokens.training import TokenizerConfig, train_tokenizer

    texts = {}
    for item in options.input:
        lang, equals, path = item.partition("=")
        if not equals:
            raise ConfigError(f"--input '{item}' must be LANG=PATH")
        if languages.tag(lang) in texts:
            raise ConfigError(f"--input names '{lang}' twice: name all its documents by one folder or glob")
        texts[languages.tag(lang)] = records.Texts(path)
    try:
        config = TokenizerConfig(
            vocab_size=options.vocab_size, model_type=options.model_type, train_bytes=options.train_bytes
        )
    except ValueError as error:
        raise ConfigError(f"--{str(error).replace('_', '-', 1)}") from error
    with writing(options.output, [found.path for found in texts.values()]):
        train_tokenizer(texts, config, options.output)
    print(options.output / "tokenizer.json")
