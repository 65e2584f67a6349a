"""The verbs on filters: `filter`, `contamination`, `thresholds`."""

import argparse
import dataclasses
import itertools
import pathlib
from typing import Any

from kanana_jax.cli.verbs import AddVerb, place
from kanana_jax.errors import ConfigError


def add_verbs(verb: AddVerb) -> None:
    """Adds `filter`, `contamination` and `thresholds`."""
    _add_filter(verb)
    _add_contamination(verb)
    _add_thresholds(verb)


def _add_filter(verb: AddVerb) -> None:
    sub = verb(
        "filter",
        _filter,
        "run the filters of a config over documents, and report what they drop",
        "example:\n  kanana lines --input 'web/*.jsonl.gz' --output lines\n"
        "  kanana filter --config configs/data/ko.py --input 'web/*.jsonl.gz' --lang ko --lines lines \\\n"
        "      --output filtered\n\n"
        "Run the same command again to resume. DIR gets kept.jsonl.gz, report.json and report.html.",
    )
    sub.add_argument("--config", required=True, metavar="FILE[:ARG]", help="Python file whose config has 'filters'")
    sub.add_argument("--config.KEY", dest="_", metavar="VALUE", help="change a value of the config")
    sub.add_argument("--input", required=True, metavar="GLOB", help="file, folder or glob of documents")
    sub.add_argument("--output", required=True, type=place, metavar="DIR", help="folder of the results")
    sub.add_argument(
        "--lang",
        default="",
        metavar="L",
        help="language of documents that do not name one: without it, no filter for a language applies to them",
    )
    sub.add_argument(
        "--lines",
        default="",
        metavar="DIR",
        help="output of `kanana lines`: lines shared by many documents are cut before anything is measured",
    )
    sub.add_argument(
        "--duplicates", default="", metavar="DIR", help="output of `kanana dedup`: the copies that it found are dropped"
    )
    sub.add_argument(
        "--format", default="", metavar="F", help="format of raw documents whose names do not show it, e.g. text"
    )
    sub.add_argument(
        "--workers", type=int, default=1, metavar="N", help="number of processes; the result does not depend on it"
    )
    sub.add_argument(
        "--keep-dropped",
        action="store_true",
        help="also write dropped.jsonl.gz, with the rules that each document breaks",
    )
    sub.add_argument(
        "--signals", action="store_true", help="also write signals.parquet, with the signals of every document"
    )
    sub.add_argument(
        "--max-broken-share",
        type=float,
        default=0.001,
        metavar="S",
        help="stop when more than this share of lines cannot be read",
    )


def _filter(options: argparse.Namespace, overrides: list[str], command: list[str]) -> None:
    from kanana_jax import config as config_lib
    from kanana_jax.data.filters import FilterConfig, job
    from kanana_jax.data.read.outputs import writing
    from kanana_jax.report.filters import write_filter_report

    config = config_lib.read_config_file(options.config)
    config_lib.override(config, overrides, lambda _: {"filters": dict[str, FilterConfig]})
    if "filters" not in config:
        raise ConfigError(f"{options.config} has no section 'filters'")
    configs = {key: config_lib.build(FilterConfig, value, f"filters.{key}") for key, value in config.filters.items()}
    looked_up = {name: getattr(options, name) for name in ("lines", "duplicates")}
    looked_up = {name: str(place(folder)) for name, folder in looked_up.items() if folder}
    configs = {key: dataclasses.replace(value, **looked_up) for key, value in configs.items()}
    try:
        settings = job.JobConfig(
            options.workers,
            options.keep_dropped,
            options.signals,
            options.lang,
            options.max_broken_share,
            options.format,
        )
    except ValueError as error:
        raise ConfigError(f"--{error}") from error
    with writing(options.output, [options.input]) as output, job.progress_bar() as progress:
        report = job.run(configs, options.input, output, settings, progress)
        write_filter_report(output)
    print(f"{report['kept']} of {report['documents']} documents kept: {options.output / 'report.html'}")
    if report["unjudged"]:
        there = ", ".join(f"{n} of {lang or 'none'}" for lang, n in report["unjudged_by_lang"].items())
        print(f"{report['unjudged']} documents were not judged by any filter, because of their language: {there}")


def _add_contamination(verb: AddVerb) -> None:
    sub = verb(
        "contamination",
        _contamination,
        "store the n-grams of evaluation sets, for filters to find them in documents",
        "example:\n  kanana contamination --input gsm8k=test.jsonl:question,answer mmlu=mmlu.jsonl --output sets\n\n"
        "Filters with `contamination = 'DIR'` then measure the signal `contamination`.",
    )
    sub.add_argument(
        "--input",
        required=True,
        nargs="+",
        metavar="NAME=FILE[:FIELD,…]",
        help=".jsonl or .jsonl.gz file; default: all fields of 20 characters or more",
    )
    sub.add_argument("--output", required=True, type=place, metavar="DIR", help="folder of the results")
    sub.add_argument(
        "--max-items",
        type=int,
        default=10,
        metavar="N",
        help="ignore n-grams that occur in more than N items: they are templates",
    )


def _contamination(options: argparse.Namespace, overrides: list[str], command: list[str]) -> None:
    from kanana_jax.data.filters import decontamination
    from kanana_jax.data.read.outputs import writing

    sets, files = {}, []
    for item in options.input:
        name, equals, given = item.partition("=")
        path, _, fields = given.rpartition(":")
        if not path or fields.startswith("/"):  # a path without fields, or a bucket's address
            path, fields = given, ""
        if not equals or not path:
            raise ConfigError(f"--input '{item}' must be NAME=FILE or NAME=FILE:FIELD,FIELD")
        files.append(path)
        found = decontamination.items(path, tuple(fields.split(",")) if fields else ())
        sets[name] = itertools.chain(sets.get(name, ()), found)
    try:
        config = decontamination.ContaminationConfig(max_items=options.max_items)
    except ValueError as error:
        raise ConfigError(f"--max-items: {error}") from error
    with writing(options.output, files) as output:
        report = decontamination.build(sets, config, output)
    for name, found in report["sets"].items():
        print(f"{name}: {found['ngrams']} n-grams of {found['items']} texts, {found['too_short']} too short")
    print(options.output)


def _add_thresholds(verb: AddVerb) -> None:
    sub = verb(
        "thresholds",
        _thresholds,
        "fit the English thresholds of a filter to another language, on reference texts of both",
        "example:\n  kanana thresholds --english-config configs/data/en.py:unfitted --english 'good/en/books/*' \\\n"
        "      --config configs/data/ko.py:unfitted --lang ko --input 'good/ko/law/*' 'good/ko/docs/*' \\\n"
        "      --output configs/data/ko_thresholds.json",
    )
    sub.add_argument("--english-config", required=True, metavar="FILE", help="config with 'filters.en'")
    sub.add_argument("--english", required=True, nargs="+", metavar="GLOB", help="good English text")
    sub.add_argument("--config", required=True, metavar="FILE", help="config with 'filters.LANG'")
    sub.add_argument("--lang", required=True, metavar="LANG", help="language to fit, e.g. ko")
    sub.add_argument("--input", required=True, nargs="+", metavar="GLOB", help="good text, one kind per GLOB")
    sub.add_argument(
        "--fixed", nargs="*", default=[], metavar="RULE", help="rules whose bounds stay as they are, e.g. words"
    )
    sub.add_argument(
        "--describe", default="", metavar="TEXT", help="description of the texts, written to the output as provenance"
    )
    sub.add_argument("--output", required=True, type=place, metavar="FILE.json", help="file of the fitted bounds")


def _thresholds(options: argparse.Namespace, overrides: list[str], command: list[str]) -> None:
    from kanana_jax.data.read.outputs import writing
    from kanana_jax.files import write_json

    with writing(options.output, [*options.english, *options.input], folder=False):
        write_json(options.output, _fitted(options))
    print(options.output)


def _fitted(options: argparse.Namespace) -> dict[str, Any]:
    """The bounds of the English rules in the other language, with their provenance."""
    import numpy as np

    from kanana_jax import config as config_lib
    from kanana_jax import languages
    from kanana_jax.data.filters import FilterConfig, fitting
    from kanana_jax.data.filters.signals import NAMES
    from kanana_jax.data.read import records

    def read(lang: str, file: str, inputs: list[str]) -> tuple[FilterConfig, dict[str, np.ndarray]]:
        sections = config_lib.read_config_file(file).get("filters", {})
        section = sections.get(languages.key_of(lang, sections) or "")
        if section is None:
            raise ConfigError(f"{file} has no section filters.{lang}")
        config, tables = config_lib.build(FilterConfig, section, f"filters.{lang}"), {}
        for given in inputs:
            origins = records.find_all([given])
            documents = (r for o in origins for r in records.documents_of(o, source=lang) if isinstance(r, dict))
            tables[pathlib.Path(given).name] = fitting.measure_all(config, documents)
        return config, tables

    config, english = read("en", options.english_config, options.english)
    target, kinds = read(options.lang, options.config, options.input)
    rules = {
        name: rule
        for name, rule in config.rules.items()
        if rule.signal in NAMES and name in target.rules and target.rules[name].signal == rule.signal
    }
    own = {name: rule for name, rule in target.rules.items() if rule.signal in NAMES and name not in rules}
    fixed = {name: rule for name, rule in target.rules.items() if name in options.fixed}
    return fitting.document(rules, own, fixed, np.concatenate(list(english.values())), kinds, options.describe)
