"""The verb `embed`."""

import argparse

from kanana_jax.cli.verbs import AddVerb, place
from kanana_jax.errors import ConfigError

_EXAMPLE = """example:
  kanana embed runs/embed/contrastive documents.jsonl --output vectors
  kanana embed runs/embed/contrastive queries.jsonl --query --output queries

Writes vectors of length 1 of a file's texts (any form that is trained on: lines of JSON, Parquet, a folder of documents
…), in blocks of NNNNNN.npy, beside each its texts' ids (NNNNNN.json). Run the same command again after a stop: blocks
that are whole are kept. Empty texts and invalid records get no vector, among texts with the same id the first gets one,
and texts beyond the model's length are cut; all are counted."""


def add_verbs(verb: AddVerb) -> None:
    """Adds the verb."""
    sub = verb("embed", _embed, "make vectors of texts", _EXAMPLE)
    sub.add_argument("model", metavar="MODEL", help="model, stage or Hugging Face folder")
    sub.add_argument("file", metavar="FILE", help="file, folder or glob of texts")
    sub.add_argument("--output", required=True, type=place, metavar="DIR", help="folder of the vectors")
    sub.add_argument(
        "--query", action="store_true", help="embed the texts as queries, with the model's own instruction"
    )
    sub.add_argument("--instruction", default="", metavar="TEXT", help="text to put before every text, unchanged")
    sub.add_argument("--text-field", default="text", metavar="NAME", help="field that holds the text")
    sub.add_argument(
        "--max-tokens", type=int, default=0, metavar="N", help="maximum tokens of a text (default: as in training)"
    )
    sub.add_argument("--dim", type=int, default=0, metavar="N", help="keep the first N dimensions; 0: all")
    sub.add_argument("--pooling", choices=("mean", "last"), help="default: as the model was trained")
    sub.add_argument("--attention", choices=("both", "causal"), help="default: as the model was trained")
    sub.add_argument("--block", type=int, default=4096, metavar="N", help="number of texts per file of vectors")
    sub.add_argument("--half", action="store_true", help="write float16 instead of float32")
    sub.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="dtype of the computation")


def _embed(options: argparse.Namespace, overrides: list[str], command: list[str]) -> None:
    if options.query and options.instruction:
        raise ConfigError("--query puts the model's own instruction before texts: leave out --instruction, or --query")
    if options.block < 1 or options.max_tokens < 0:
        raise ConfigError("--block must be at least 1, and --max-tokens at least 0")
    from kanana_jax.applications.embed_file import EmbedConfig, embed_file
    from kanana_jax.applications.embedder import Embedder
    from kanana_jax.interop import model_folder
    from kanana_jax.progress import shown

    embedder = Embedder.load(
        options.model,
        options.dtype,
        causal=None if options.attention is None else options.attention == "causal",
        pooling=options.pooling,
        longest=options.max_tokens,
        dim=options.dim,
    )
    if options.query and not embedder.about.instruction:
        raise ConfigError(
            f"{options.model} was trained without an instruction: leave out --query, or use --instruction"
        )
    config = EmbedConfig(
        options.text_field,
        embedder.about.instruction if options.query else options.instruction or embedder.about.document,
        options.block,
        "float16" if options.half else "float32",
    )
    model = f"{model_folder.fingerprint(model_folder.find(options.model))} {options.dtype}"
    with shown("embed") as update:
        show = lambda texts: update(f"{texts:,} texts", None)  # noqa: E731
        counts = embed_file(embedder, options.file, options.output, config, model=model, show=show)
    told = [f"{counts[name]:,} {name}" for name in ("empty", "broken", "repeated", "cut") if counts[name]]
    made = f"{counts['texts']:,} vectors of {embedder.dim} numbers"
    print(f"{options.output}: {'; '.join([made, *([', '.join(told)] if told else [])])}")
