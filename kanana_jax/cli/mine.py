"""The verb `mine`."""

import argparse
import json
import logging

from kanana_jax.cli.verbs import AddVerb, place
from kanana_jax.errors import ConfigError

log = logging.getLogger("kanana")
_EXAMPLE = """example:
  kanana mine runs/embed/contrastive pairs.jsonl --output mined.jsonl
  kanana mine runs/embed/contrastive pairs.jsonl --texts passages --negatives 8 --skip 10 --output mined.jsonl

Gives pairs ({"anchor", "positive", "negatives"?}) further negatives: the passages nearest to the anchor whose cosine is
at most 95% of its positive's (--below), from the positives of the other pairs and --texts. Train on the file again with
configs/embed.py. Vectors of all passages are held in memory; --vectors keeps them, so that a stopped job resumes."""


def add_verbs(verb: AddVerb) -> None:
    """Adds the verb."""
    sub = verb("mine", _mine, "find hard negatives for pairs of texts", _EXAMPLE)
    sub.add_argument("model", metavar="MODEL", help="embedding model: model, stage or Hugging Face folder")
    sub.add_argument("pairs", metavar="PAIRS", help="records with 'anchor' and 'positive'")
    sub.add_argument(
        "--output", required=True, type=place, metavar="FILE.jsonl", help="file of the pairs with negatives"
    )
    sub.add_argument("--texts", default="", metavar="PATH", help="file, folder or glob of further passages")
    sub.add_argument(
        "--vectors", type=place, metavar="DIR", help="folder that keeps the passages' vectors between runs"
    )
    sub.add_argument(
        "--negatives", type=int, default=4, metavar="N", help="negatives per anchor, including those that it has"
    )
    sub.add_argument(
        "--below",
        type=float,
        default=0.95,
        metavar="P",
        help="maximum cosine of a negative, as a share of the positive's",
    )
    sub.add_argument("--skip", type=int, default=0, metavar="N", help="number of nearest passages to leave out")
    sub.add_argument(
        "--max-tokens", type=int, default=0, metavar="N", help="maximum tokens of a text (default: as in training)"
    )
    sub.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="dtype of the computation")


def _mine(options: argparse.Namespace, overrides: list[str], command: list[str]) -> None:
    from kanana_jax.applications.embedder import Embedder
    from kanana_jax.applications.negatives import MineConfig, mine, pairs_of
    from kanana_jax.applications.saved_vectors import keeper
    from kanana_jax.data.read import outputs, records
    from kanana_jax.data.read.record import Broken
    from kanana_jax.files import locked, whole_file

    try:
        config = MineConfig(options.negatives, options.below, options.skip)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    outputs.apart(options.output, [options.pairs, *([options.texts] if options.texts else [])])
    pairs = pairs_of(records.read(options.pairs, source="pairs"))
    found = records.read(options.texts, source="texts") if options.texts else ()
    read = ["" if isinstance(record, Broken) else record["text"] for record in found]
    if broken := read.count(""):
        log.warning("%s: %d records have no text that can be read and are left out", options.texts, broken)
    texts = list(filter(None, read))
    embedder = Embedder.load(options.model, options.dtype, longest=options.max_tokens)
    vectors = keeper(embedder, options.model, options.dtype, options.vectors)
    written = added = 0
    with (
        locked(options.output, folder=False),
        whole_file(options.output) as file,
        file.open("w", encoding="utf-8") as out,
    ):
        for record in mine(embedder, pairs.records, texts, config, embedder.about.instruction, vectors):
            out.write(json.dumps(record, ensure_ascii=False) + "\n")
            written, added = written + 1, added + len(record["negatives"])
    left = f"; {pairs.left_out:,} records without an anchor and a positive were left out" if pairs.left_out else ""
    print(f"{options.output}: {written:,} pairs, {added / written:.1f} negatives each{left}")
