"""The verb `data`: the records of a recipe as its stages see them."""

import argparse
import json
import os
import pathlib
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

from kanana_jax.cli.models import CONFIG_HELP
from kanana_jax.cli.verbs import AddVerb, place
from kanana_jax.errors import ConfigError

_EXAMPLE = """example:
  kanana data show --config configs/sft.py:MODEL,chats.jsonl
  kanana data show --config configs/dpo.py:MODEL,pairs.jsonl --rows 1 --all
  kanana data show --config configs/tiny.py --workdir runs/tiny --stage stage2 | less -R

The rows of the stage's first step, with the text that carries loss in colour; without a terminal, or with NO_COLOR, it
stands in {+ +}. Documents are converted into --workdir if they are not there yet."""
_GREEN, _DIM, _BOLD, _PLAIN = "\x1b[32m", "\x1b[2m", "\x1b[1m", "\x1b[0m"


def add_verbs(verb: AddVerb) -> None:
    """Adds the verb."""
    sub = verb("data", _data, "show the rows that a stage trains on", _EXAMPLE)
    sub.add_argument("what", choices=("show",), help="show: print rows and count records that are left out")
    sub.add_argument("--config", required=True, metavar="FILE_OR_NAME[:ARG]", help=CONFIG_HELP)
    sub.add_argument("--workdir", type=place, metavar="DIR", help="workdir of the run (default: a temporary one)")
    sub.add_argument("--stage", default="", metavar="NAME", help="default: the first that trains")
    sub.add_argument("--rows", type=int, default=2, metavar="N", help="number of rows to print")
    sub.add_argument("--all", action="store_true", help="also read every record, and count tokens and reasons")
    sub.add_argument("--color", choices=("auto", "always", "never"), default="auto", help="default: on a terminal")
    sub.add_argument("--config.KEY", dest="_", metavar="VALUE", help="change a value of the config")


def _data(options: argparse.Namespace, overrides: list[str], command: list[str]) -> None:
    if options.rows < 0:
        raise ConfigError(f"--rows must be at least 0, not {options.rows}")
    os.environ.setdefault("JAX_PLATFORMS", "cpu")  # an accelerator may be busy training
    from kanana_jax import config as config_lib
    from kanana_jax.files import locked
    from kanana_jax.recipe import config as recipe_config

    config = config_lib.read_config_file(options.config)
    recipe_config.override(config, overrides)
    recipe, stages = recipe_config.parse(config)
    coloured = options.color == "always" or (
        options.color == "auto" and sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    )

    def show(workdir: pathlib.Path) -> None:
        from kanana_jax.recipe import rows

        found = rows.reading(recipe, stages, options.stage, workdir)
        for line in _lines(found, options.rows, options.all, coloured):
            print(line)

    if options.workdir is not None:
        with locked(options.workdir):
            show(options.workdir)
        return
    with tempfile.TemporaryDirectory(prefix="kanana-data-") as folder:
        show(pathlib.Path(folder))


def _lines(found: Any, count: int, everything: bool, coloured: bool) -> Iterator[str]:
    """The printed lines of a `recipe.rows.Reading`."""
    from kanana_jax.recipe import rows as rows_lib

    if count:
        rows, report = rows_lib.first_rows(found, count)
        for row in range(count):
            yield from _row(found, rows, row, coloured)
        yield _style(f"records read for these rows (stage '{found.name}')", _BOLD, coloured)
        for name, own in report["sources"].items():
            if own["documents"]:
                reasons = ", ".join(f"{n['any']:,} {rule}" for rule, n in sorted(own["rules"].items()))
                told = f"; left out: {reasons}" if reasons else ""
                yield f"  {name}: {own['documents']:,} read, {own['kept']:,} trained on{told}"
    if everything:
        yield _style(f"all records that are not held out (stage '{found.name}', before filters)", _BOLD, coloured)
        for name, own in rows_lib.count_all(found):
            reasons = ", ".join(f"{n:,} {reason}" for reason, n in sorted(own.reasons.items()))
            told = f"; left out: {reasons}" if reasons else ""
            yield (
                f"  {name}: {own.records:,} records, {own.kept:,} trained on; {own.tokens:,} tokens, {own.trained:,} "
                f"carry loss; the longest has {own.longest:,}{told}"
            )


def _row(found: Any, rows: Any, row: int, coloured: bool) -> Iterator[str]:
    from kanana_jax.data.stream import spelling
    from kanana_jax.data.stream.encode import PairEncoder, PromptEncoder, RewardEncoder, fields_of

    judged = {}
    if isinstance(found.encoder, PromptEncoder):  # what follows the prompt is not text
        _, judged = fields_of(rows.inputs[row], rows.targets[row], rows.segment_ids[row])
        rows = rows._replace(segment_ids=rows.segment_ids * (rows.segment_ids == 1))
    segments = spelling.segments(rows, row, found.run.tokenizer)
    source = list(found.run.prepared)[int(rows.source[row])]
    length, read = rows.inputs.shape[1], sum(segment.tokens for segment in segments)
    trained = sum(segment.trained for segment in segments)
    told = f"row {row + 1} of stage '{found.name}', source '{source}': {read:,} of {length:,} tokens"
    yield _style(
        f"{told}, {trained:,} carry loss, {len(segments)} segment{'s' * (len(segments) != 1)}", _BOLD, coloured
    )
    pairs = isinstance(found.encoder, (PairEncoder, RewardEncoder))
    for number, segment in enumerate(segments):
        kind = ("chosen, " if number % 2 == 0 else "rejected, ") if pairs else ""
        head = f"--- segment {number + 1}: {kind}{segment.tokens:,} tokens, {segment.trained:,} carry loss"
        yield _style(head, _BOLD, coloured)
        yield "".join(_marked(part, coloured) for part in segment.parts)
    if judged:
        yield f"--- answers are judged by: {json.dumps(judged, ensure_ascii=False)}"
    yield ""


def _marked(part: Any, coloured: bool) -> str:
    if coloured:
        return _style(part.text, _GREEN if part.weight else _DIM, True)
    weight = "" if part.weight in (0, 1) else f"{part.weight:g}:"
    return f"{{+{weight}{part.text}+}}" if part.weight else part.text


def _style(text: str, style: str, coloured: bool) -> str:
    """Text in a style, line by line: a pager forgets it at the end of each."""
    return "\n".join(f"{style}{line}{_PLAIN}" if line else "" for line in text.split("\n")) if coloured else text
