"""The verb `tokenizer`."""

import argparse
import contextlib
import sys
import time
from collections.abc import Callable, Generator, Mapping
from typing import TYPE_CHECKING

from kanana_jax.cli.verbs import AddVerb, place
from kanana_jax.errors import ConfigError

if TYPE_CHECKING:
    from kanana_jax.data.tokens.training import TokenizerConfig

_EVERY_S = 30.0  # between two lines about the reading


def add_verbs(verb: AddVerb) -> None:
    """Adds `tokenizer`."""
    sub = verb(
        "tokenizer",
        _tokenizer,
        "train a vocabulary",
        "example:\n  kanana tokenizer train --input ko=docs/ko en=docs/en --output vocab --vocab-size 32000\n\n"
        "All languages get equal parts: one with less text is repeated up to the size of the largest.",
    )
    sub.add_argument("what", choices=("train",), help="the only action")
    sub.add_argument("--input", required=True, nargs="+", metavar="LANG=PATH", help="documents of each language")
    sub.add_argument("--output", required=True, type=place, metavar="DIR", help="folder of the new tokenizer")
    sub.add_argument("--vocab-size", type=int, default=32000, metavar="N", help="tokens of the vocabulary")
    sub.add_argument(
        "--model-type",
        choices=("bpe", "unigram"),
        default="bpe",
        help="bpe: byte-level BPE as in Llama 3; unigram: SentencePiece's",
    )
    sub.add_argument(
        "--train-bytes",
        type=int,
        default=100_000_000,
        metavar="N",
        help="most bytes of text to train on, all languages together (default 100 MB)",
    )


def _tokenizer(options: argparse.Namespace, overrides: list[str], command: list[str]) -> None:
    from kanana_jax import languages
    from kanana_jax.data.read import records
    from kanana_jax.data.read.outputs import writing
    from kanana_jax.data.tokens import training
    from kanana_jax.data.tokens.training import TokenizerConfig

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
    with writing(options.output, [found.path for found in texts.values()]) as output:
        with _reading() as tell:
            found = training.sizes(texts, config, tell)
        config = training.without_repeats(config, found)
        _say_what_is_there(config, found)
        began = time.monotonic()
        with _waiting(config):
            training.train_tokenizer(texts, config, output, bars=sys.stderr.isatty())
        _say(f"trained in {time.monotonic() - began:.0f} s")
    print(options.output / "tokenizer.json")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _megabytes(size: float) -> str:
    return f"{size / 1e6:,.1f} MB"


def _say_what_is_there(config: "TokenizerConfig", found: Mapping[str, int]) -> None:
    from kanana_jax.data.tokens.training import MAX_PASSES

    sizes = ", ".join(f"{lang} {_megabytes(size)}" for lang, size in found.items())
    each = config.train_bytes / len(found)
    times = {lang: min(each / size, MAX_PASSES) for lang, size in found.items() if 0 < size < 0.99 * each}
    repeated = [f"{lang} {count:.1f} times" for lang, count in times.items()]
    again = f" (read to equal parts: {', '.join(repeated)})" if repeated else ""
    kind = {"bpe": "byte-level BPE", "unigram": "SentencePiece Unigram, one thread"}[config.model_type]
    _say(f"text: {sizes}; training {config.vocab_size:,} pieces on {_megabytes(config.train_bytes)}{again}, {kind}")


@contextlib.contextmanager
def _reading() -> Generator[Callable[[str, int, int], None]]:
    """Shows what is read of each language: a bar and the time left on a terminal, else a line every half minute."""
    if sys.stderr.isatty():
        from rich import progress
        from rich.console import Console

        columns = (progress.DownloadColumn(), progress.TransferSpeedColumn(), progress.TimeRemainingColumn())
        text, console = progress.TextColumn("reading {task.description}"), Console(stderr=True)
        with progress.Progress(text, progress.BarColumn(), *columns, console=console) as bar:
            tasks: dict[str, progress.TaskID] = {}

            def move(lang: str, size: int, budget: int) -> None:
                if lang not in tasks:
                    tasks[lang] = bar.add_task(lang, total=budget)
                bar.update(tasks[lang], completed=size)

            yield move
        return
    last = time.monotonic()

    def tell(lang: str, size: int, budget: int) -> None:
        nonlocal last
        if time.monotonic() - last > _EVERY_S:
            last = time.monotonic()
            _say(f"reading {lang}: {_megabytes(size)} of at most {_megabytes(budget)}")

    yield tell


@contextlib.contextmanager
def _waiting(config: "TokenizerConfig") -> Generator[None]:
    """The time gone by while SentencePiece trains, which tells nothing; BPE's trainer shows its own bars."""
    if config.model_type == "bpe" or not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status("training: SentencePiece does not report its progress"):
        yield
