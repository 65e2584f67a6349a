"""The verbs on what occurs more than once: `dedup` (documents), `lines`."""

import argparse
import sys

from kanana_jax.cli.verbs import AddVerb, place
from kanana_jax.errors import ConfigError


def add_verbs(verb: AddVerb) -> None:
    """Adds `dedup` and `lines`."""
    _add_dedup(verb)
    _add_lines(verb)


def _add_dedup(verb: AddVerb) -> None:
    sub = verb(
        "dedup",
        _dedup,
        "find exact and near duplicates, and write a verdict for each document",
        "example:\n  kanana dedup --input 'web/*.jsonl.gz' --output duplicates\n\n"
        "Filters with `duplicates = 'DIR'` then drop them. Run it again with more inputs: only the new ones are read.",
    )
    sub.add_argument("--input", required=True, nargs="+", metavar="GLOB", help="documents, the preferred ones first")
    sub.add_argument("--output", required=True, type=place, metavar="DIR", help="folder of the results")
    sub.add_argument("--bands", type=int, default=14, metavar="B", help="bands of the MinHash signature")
    sub.add_argument("--rows", type=int, default=8, metavar="R", help="hashes per band")
    sub.add_argument(
        "--threshold", type=float, default=0.8, metavar="J", help="minimum Jaccard similarity of near duplicates"
    )
    sub.add_argument(
        "--keep", choices=("first", "longest", "best"), default="first", help="which copy of a duplicate group to keep"
    )
    sub.add_argument(
        "--quality", default="quality", metavar="NAME", help="field of meta to rank copies by for --keep best"
    )
    sub.add_argument("--lang", default="default", metavar="L", help="language of documents without one")
    sub.add_argument("--seed", type=int, default=0, metavar="S", help="seed of the hash functions")
    sub.add_argument(
        "--beam",
        action="append",
        metavar="OPTION",
        help="run as an Apache Beam pipeline, e.g. --beam=--runner=DirectRunner",
    )


def _dedup(options: argparse.Namespace, overrides: list[str], command: list[str]) -> None:
    from kanana_jax.data.dedup import local, minhash
    from kanana_jax.data.dedup.index import DedupConfig
    from kanana_jax.data.read.outputs import writing

    try:
        hashing = minhash.MinHashConfig(options.bands, options.rows, seed=options.seed)
        config = DedupConfig(hashing, options.threshold, options.keep, options.quality, options.lang)
    except ValueError as error:
        raise ConfigError(f"--bands, --rows, --threshold: {error}") from error

    def show(count: int) -> None:
        print(f"\r{count:,} documents", end="", file=sys.stderr, flush=True)

    with writing(options.output, options.input) as output:
        if options.beam:
            from kanana_jax.data.dedup import beam

            report = beam.run(config, options.input, output, options.beam)
        else:
            report = local.run(config, options.input, output, show if sys.stderr.isatty() else None)
    print(
        f"{report['kept']} of {report['documents']} documents kept "
        f"({report['exact']} exact, {report['near']} near duplicates of similarity {config.threshold:g} ± "
        f"{report['standard_error']:g} and more): {options.output / 'duplicates.jsonl'}"
    )


def _add_lines(verb: AddVerb) -> None:
    sub = verb(
        "lines",
        _lines,
        "find lines that many documents share: menus, footers, notices",
        "example:\n  kanana lines --input 'web/*.jsonl.gz' --output lines\n\n"
        "Filters with `lines = 'DIR'` then cut them out.",
    )
    sub.add_argument("--input", required=True, nargs="+", metavar="GLOB", help="file, folder or glob of documents")
    sub.add_argument("--output", required=True, type=place, metavar="DIR", help="folder of the results")
    sub.add_argument("--red", type=int, default=50, metavar="N", help="cut a line that occurs in more than N documents")
    sub.add_argument(
        "--yellow",
        type=int,
        default=3,
        metavar="N",
        help="cut a line outside running text that occurs in more than N documents",
    )


def _lines(options: argparse.Namespace, overrides: list[str], command: list[str]) -> None:
    from kanana_jax.data.dedup import lines
    from kanana_jax.data.read.outputs import writing

    try:
        config = lines.LinesConfig(options.red, options.yellow)
    except ValueError as error:
        raise ConfigError(f"--red, --yellow: {error}") from error
    with writing(options.output, options.input) as output:
        report = lines.run(config, options.input, output)
    found = {colour: report[colour]["patterns"] for colour in ("red", "yellow")}
    print(
        f"{report['lines']} lines of {report['documents']} documents, {found['red']} red and {found['yellow']} yellow"
    )
    print(options.output / "report.json")
