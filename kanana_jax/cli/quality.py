"""The verb `quality`: train a classifier, score documents with it, find a threshold."""

import argparse
import contextlib
import gzip
import io
import json
import pathlib
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from kanana_jax.cli.verbs import AddVerb, place
from kanana_jax.errors import ConfigError

if TYPE_CHECKING:
    from kanana_jax.data.quality import JudgeConfig, QualityConfig
    from kanana_jax.data.quality.annotate import Annotator

_EXAMPLE = """examples:
  kanana quality train --config configs/data/edu_ko.py --output edu
  kanana quality score edu/round2/model.bin --input 'web/*.jsonl.gz' --output scores.jsonl.gz
  kanana quality threshold edu/round2/model.bin --input 'web/*.jsonl.gz' --keep 0.1

A filter uses the model as the signal quality.NAME:
  c.filters.ko.quality = dict(edu=dict(path='edu/round2/model.bin'))
  c.filters.ko.rules.edu = dict(signal='quality.edu', min=0.5)"""


def add_verbs(verb: AddVerb) -> None:
    """Adds the verb."""
    quality = verb("quality", lambda *_: None, "train and use classifiers of good documents (fastText)", _EXAMPLE)
    parts = quality.add_subparsers(dest="what", required=True, metavar="train|score|threshold")

    train = parts.add_parser(
        "train", help="train a classifier by the section 'quality' of a config", allow_abbrev=False
    )
    train.set_defaults(action=_train)
    train.add_argument("--config", required=True, metavar="FILE[:ARG]", help="Python file whose config has 'quality'")
    train.add_argument("--config.KEY", dest="_", metavar="VALUE", help="change a value of the config")
    train.add_argument("--output", required=True, type=place, metavar="DIR", help="folder of models and the report")

    score = parts.add_parser("score", help="write the score of every document", allow_abbrev=False)
    score.set_defaults(action=_score)
    threshold = parts.add_parser(
        "threshold", help="find the score that keeps a given share of documents", allow_abbrev=False
    )
    threshold.set_defaults(action=_threshold)
    for part in (train, score, threshold):
        part.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    for part in (score, threshold):
        part.add_argument("model", metavar="MODEL.bin", help="a fastText model, your own or a published one")
        part.add_argument("--input", required=True, nargs="+", metavar="GLOB", help="file, folder or glob of documents")
        part.add_argument(
            "--text",
            choices=("raw", "word", "character"),
            default="word",
            help="how text is prepared; raw for published models",
        )
        part.add_argument("--label", default="__label__good", metavar="L", help="label whose probability is the score")
        part.add_argument(
            "--max-characters", type=int, default=4000, metavar="N", help="characters of a document to read; 0: all"
        )
    score.add_argument("--output", required=True, type=place, metavar="FILE.jsonl.gz", help="file of ids and scores")
    threshold.add_argument("--keep", type=float, default=0.1, metavar="S", help="share of documents to keep")


def _train(options: argparse.Namespace, overrides: list[str], command: list[str]) -> None:
    from kanana_jax import config as config_lib
    from kanana_jax.data.quality import QualityConfig
    from kanana_jax.data.read.outputs import writing
    from kanana_jax.files import is_remote
    from kanana_jax.report.quality import write_quality_report

    values = config_lib.read_config_file(options.config)
    config_lib.override(values, overrides, lambda _: {"quality": QualityConfig})
    if "quality" not in values:
        raise ConfigError(f"{options.config} has no section 'quality'")
    config = config_lib.build(QualityConfig, values.quality, "quality")
    asked = config.endpoint or config.judge
    if config.labels and asked and is_remote(place(config.labels)):
        raise ConfigError(
            f"quality.labels '{config.labels}' is in a bucket, where nothing can be appended: name a local file, or "
            "leave it empty, so that labels are kept in --output"
        )
    with contextlib.ExitStack() as stack:
        output = stack.enter_context(writing(options.output, config.documents))
        if config.labels and asked:  # labels are appended to a file of the user's
            stack.enter_context(writing(pathlib.Path(config.labels), config.documents, folder=False))
        report = _rounds(config, output)
        write_quality_report(output)
    last = report["rounds"][-1]
    print(f"average precision {last['average_precision']}, threshold {last['threshold']:.4f}: {last['model']['path']}")
    print(options.output / "report.html")


def _rounds(config: "QualityConfig", output: pathlib.Path) -> dict[str, Any]:
    """Trains as the config says, and returns what `report.json` holds."""
    from kanana_jax.data.quality import annotate, labels, loop, pairs
    from kanana_jax.files import local_copy

    def progress(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    if config.pairs is not None:
        return pairs.run(config.pairs, config.classifier, output, progress)
    assert config.loop is not None  # `QualityConfig` sees to it
    annotator = None
    if config.endpoint is not None:
        annotator = annotate.endpoint(config.endpoint)
    elif config.judge is not None:
        annotator = _judge(config.judge)
    file = local_copy(config.labels) if config.labels else output / "labels.jsonl"
    return loop.run(config.loop, config.classifier, labels.Labels(file, annotator), output, progress)


def _judge(config: "JudgeConfig") -> "Annotator":
    """An annotator that asks one of our own models."""
    from kanana_jax.data.quality import annotate
    from kanana_jax.inference.sampling import SamplingConfig
    from kanana_jax.inference.session import Session

    session = Session.load(config.model, config.dtype)

    def ask(prompts: Sequence[str]) -> list[str]:
        messages = [[{"role": "user", "content": prompt}] for prompt in prompts]
        sampling = SamplingConfig(temperature=0.0)
        return [session.answer(m, max_new_tokens=config.max_new_tokens, sampling=sampling, seed=0) for m in messages]

    return annotate.judge(ask, config.max_characters)


def _scores(options: argparse.Namespace) -> Iterator[tuple[str, str, float]]:
    """Identity, place and score of every document."""
    from kanana_jax.data.arrays.characters import normalise
    from kanana_jax.data.quality import Classifier, QualityModel
    from kanana_jax.data.read import records

    classifier = Classifier(QualityModel(options.model, options.text, options.max_characters, options.label))
    for origin in records.find_all(options.input):
        for number, item in enumerate(records.documents_of(origin, source=""), 1):
            if isinstance(item, dict):
                yield item["id"], f"{origin.path}:{number}", float(classifier([normalise(item["text"])])[0])


def _score(options: argparse.Namespace, overrides: list[str], command: list[str]) -> None:
    from kanana_jax.data.read.outputs import writing
    from kanana_jax.files import whole_file

    count = 0
    output = options.output
    with (
        writing(output, options.input, folder=False),
        whole_file(output) as partial,
        partial.open("wb") as raw,
        gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as packed,  # the same scores are the same bytes
        io.TextIOWrapper(packed, encoding="utf-8", newline="\n") as file,
    ):
        for identity, place, score in _scores(options):
            row = {"id": identity, "score": round(score, 6), "place": place}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            count += 1
    print(f"{count} documents: {output}")


def _threshold(options: argparse.Namespace, overrides: list[str], command: list[str]) -> None:
    import numpy as np

    from kanana_jax.data.quality import curves

    scores = np.array([score for *_, score in _scores(options)])
    try:
        threshold = curves.threshold_to_keep(scores, options.keep)
    except ValueError as error:
        raise ConfigError(f"--keep: {error}") from error
    kept = float(np.mean(scores >= threshold))
    print(json.dumps({"threshold": threshold, "documents": len(scores), "kept": round(kept, 4)}))
