"""The `kanana` command. Nothing heavy is imported before a verb is known."""

import argparse
import logging
import os
import pathlib
import sys
import threading
from collections.abc import Sequence

from kanana_jax.config import ConfigError, UserError

_RUN_EXAMPLE = """example:
  kanana run --config configs/tiny.py --workdir runs/tiny
  kanana run --config configs/tiny.py --workdir runs/long --config.stage1.train.tokens=8_000_000

Run it again and it goes on where it stopped. Exit codes: 0 done, 1 failed, 2 bad usage or config,
75 told to stop (SIGTERM, pre-emption) and saved."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a verb; returns the exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    try:
        overrides = _overrides(rest) if hasattr(options, "config") else _nothing(rest, parser)
        logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
        logging.getLogger("kanana").setLevel(logging.INFO)
        if not options.debug:
            # A failed save comes back to this thread and is told by its own sentence; asyncio and the writing
            # threads would add a traceback for every array.
            for name in ("asyncio", "absl"):
                logging.getLogger(name).setLevel(logging.CRITICAL)
            sys.excepthook = sys.unraisablehook = threading.excepthook = lambda *_: None
        options.action(options, overrides, ["kanana", *arguments])
        return 0
    except UserError as error:
        if options.debug:
            raise
        print(f"kanana: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("kanana: interrupted; run the same command again to go on", file=sys.stderr)
        return 130
    except Exception as error:
        if options.debug:
            raise
        first = (str(error).strip().splitlines() or [""])[0]
        print(f"kanana: {type(error).__name__}: {first} (--debug shows where)", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser = argparse.ArgumentParser(
        prog="kanana", description="Train local-language models by the Kanana recipe, in JAX.", formatter_class=raw
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    def verb(name, action, summary, example):
        sub = verbs.add_parser(
            name,
            help=summary,
            description=summary,
            parents=[common],
            formatter_class=raw,
            allow_abbrev=False,
            epilog=example,
        )
        sub.set_defaults(action=action)
        return sub

    run = verb("run", _run, "run the recipe in a config, or go on with it", _RUN_EXAMPLE)
    run.add_argument("--config", required=True, metavar="FILE[:ARG]", help="Python file with get_config(arg)")
    run.add_argument("--workdir", required=True, type=pathlib.Path, metavar="DIR", help="where everything is written")
    run.add_argument(
        "--config.KEY", dest="_", metavar="VALUE", help="change a value of the config, e.g. --config.seed=1"
    )
    run.add_argument(
        "--distributed", action="store_true", help="one of many processes; on TPU pods and Slurm all is found out"
    )
    run.add_argument(
        "--coordinator", default="", metavar="HOST:PORT", help="address of process 0, where it is not found out"
    )
    run.add_argument("--num-processes", type=int, default=-1, metavar="N")
    run.add_argument("--process-id", type=int, default=-1, metavar="I")
    run.add_argument("--join-timeout", type=int, default=300, metavar="S", help="seconds to wait for all processes")

    importer = verb(
        "import",
        _import,
        "Hugging Face Llama folder -> model folder with model.json",
        "example:\n  kanana import Llama-3.2-1B models/llama-1b",
    )
    importer.add_argument("source", type=pathlib.Path, metavar="HF_DIR")
    importer.add_argument("destination", type=pathlib.Path, metavar="OUT")

    exporter = verb(
        "export", _export, "model -> plain Hugging Face folder", "example:\n  kanana export runs/tiny/stage2 exported"
    )
    exporter.add_argument("source", type=pathlib.Path, metavar="MODEL")
    exporter.add_argument("destination", type=pathlib.Path, metavar="HF_DIR")

    for name, action, summary in (
        ("generate", _generate, "continue a prompt"),
        ("chat", _chat, "talk to a model, turn by turn"),
    ):
        sub = verb(
            name,
            action,
            summary,
            f"example:\n  kanana {name} runs/tiny/stage2"
            + (' --prompt "한빛시는" --max-new-tokens 60' if name == "generate" else ""),
        )
        sub.add_argument("model", metavar="MODEL", help="model, stage or Hugging Face folder")
        if name == "generate":
            sub.add_argument("--prompt", required=True, action="append", metavar="TEXT", help="may be given many times")
        sub.add_argument("--max-new-tokens", type=int, default=128, metavar="N")
        sub.add_argument("--temperature", type=float, default=0.7, metavar="T", help="0: greedy")
        sub.add_argument("--top-k", type=int, default=0, metavar="K")
        sub.add_argument("--top-p", type=float, default=0.9, metavar="P")
        sub.add_argument("--seed", type=int, default=0, metavar="S")
        sub.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="of the computation")

    filtering = verb(
        "filter",
        _filter,
        "run the filters of a config over documents, and report what they drop",
        "example:\n  kanana filter --config configs/data/ko.py --input 'web/*.jsonl.gz' --output filtered\n\n"
        "Run it again and it goes on where it stopped. DIR gets kept.jsonl.gz, report.json and report.html.",
    )
    filtering.add_argument(
        "--config", required=True, metavar="FILE[:ARG]", help="Python file whose config has 'filters'"
    )
    filtering.add_argument("--config.KEY", dest="_", metavar="VALUE", help="change a value of the config")
    filtering.add_argument("--input", required=True, metavar="GLOB", help="file, folder or glob of documents")
    filtering.add_argument("--output", required=True, type=pathlib.Path, metavar="DIR")
    filtering.add_argument("--lang", default="", metavar="L", help="language of documents that do not say theirs")
    filtering.add_argument("--workers", type=int, default=1, metavar="N", help="processes; the result is the same")
    filtering.add_argument("--keep-dropped", action="store_true", help="also write dropped.jsonl.gz, with rules")
    filtering.add_argument("--signals", action="store_true", help="also write every document's signals.parquet")
    filtering.add_argument("--max-broken-share", type=float, default=0.001, metavar="S", help="of lines, to be skipped")

    dedup = verb(
        "dedup",
        _dedup,
        "find exact and near duplicates, and write a verdict for each document",
        "example:\n  kanana dedup --input 'web/*.jsonl.gz' --output duplicates\n\n"
        "Filters with `duplicates = 'DIR'` then drop them. Run it again with more inputs: only these are read.",
    )
    dedup.add_argument(
        "--input", required=True, nargs="+", metavar="GLOB", help="documents, in the order of preference"
    )
    dedup.add_argument("--output", required=True, type=pathlib.Path, metavar="DIR")
    dedup.add_argument("--bands", type=int, default=14, metavar="B")
    dedup.add_argument("--rows", type=int, default=8, metavar="R")
    dedup.add_argument("--keep", choices=("first", "longest", "best"), default="first", help="of several")
    dedup.add_argument("--quality", default="quality", metavar="NAME", help="field of meta that says what is best")
    dedup.add_argument("--lang", default="default", metavar="L", help="language of documents that do not say theirs")
    dedup.add_argument("--seed", type=int, default=0, metavar="S")
    dedup.add_argument(
        "--beam",
        action="append",
        metavar="OPTION",
        help="run as an Apache Beam pipeline, e.g. --beam=--runner=DirectRunner",
    )

    thresholds = verb(
        "thresholds",
        _thresholds,
        "fit the English thresholds of a filter to another language, on reference text of both",
        "example:\n  kanana thresholds --english-config configs/data/en.py --english 'good/en/*' \\\n"
        "      --config configs/data/ko.py --lang ko --input 'good/ko/*' --output configs/data/ko_thresholds.json",
    )
    thresholds.add_argument("--english-config", required=True, metavar="FILE", help="config with 'filters.en'")
    thresholds.add_argument("--english", required=True, nargs="+", metavar="GLOB", help="good English text")
    thresholds.add_argument("--config", required=True, metavar="FILE", help="config with 'filters.LANG'")
    thresholds.add_argument("--lang", required=True, metavar="LANG")
    thresholds.add_argument("--input", required=True, nargs="+", metavar="GLOB", help="good text of the language")
    thresholds.add_argument("--describe", default="", metavar="TEXT", help="what the texts are, for the provenance")
    thresholds.add_argument("--output", required=True, type=pathlib.Path, metavar="FILE.json")

    trainer = verb(
        "tokenizer",
        _tokenizer,
        "train a SentencePiece vocabulary",
        "example:\n  kanana tokenizer train --input ko=docs/ko en=docs/en --output vocab --vocab-size 32000",
    )
    trainer.add_argument("what", choices=("train",))
    trainer.add_argument("--input", required=True, nargs="+", metavar="LANG=PATH", help="documents of each language")
    trainer.add_argument("--output", required=True, type=pathlib.Path, metavar="DIR")
    trainer.add_argument("--vocab-size", type=int, default=32000, metavar="N")
    trainer.add_argument("--model-type", choices=("unigram", "bpe"), default="unigram")
    trainer.add_argument(
        "--train-bytes", type=int, default=100_000_000, metavar="N", help="text used, all languages together"
    )
    return parser


def _nothing(rest: Sequence[str], parser: argparse.ArgumentParser) -> list[str]:
    if rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    return []


def _overrides(rest: Sequence[str]) -> list[str]:
    """`--config.a.b=v` and `--config.a.b v` → `a.b=v`."""
    assignments, waiting = [], None
    for argument in rest:
        if waiting is not None:
            assignments.append(f"{waiting}={argument}")
            waiting = None
        elif argument.startswith("--config."):
            key, equals, value = argument.removeprefix("--config.").partition("=")
            if equals:
                assignments.append(f"{key}={value}")
            else:
                waiting = key
        else:
            raise ConfigError(f"unrecognized argument '{argument}': changes of the config are --config.KEY=VALUE")
    if waiting is not None:
        raise ConfigError(f"override '--config.{waiting}' needs a value: --config.{waiting}=VALUE")
    return assignments


def _run(options, overrides: list[str], command: list[str]) -> None:
    from kanana_jax import config as config_lib

    config = config_lib.read_config_file(options.config)
    config_lib.override(config, overrides)
    from kanana_jax import recipe

    recipe.parse(config)  # a bad config is told before anything is started
    _start_jax(options.workdir)
    if options.distributed or options.coordinator:
        from kanana_jax.parallel import multihost

        multihost.start(
            multihost.ProcessConfig(
                options.coordinator, options.num_processes, options.process_id, options.join_timeout
            )
        )
    recipe.run(config, options.workdir, command)
    print(f"{options.workdir / 'report.html'}")


def _start_jax(workdir: pathlib.Path | None) -> None:
    """Compiled programs are kept, so that a second start does not compile again."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import jax

    if workdir is not None:
        jax.config.update("jax_compilation_cache_dir", str((workdir / "compiled").absolute()))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def _import(options, overrides, command) -> None:
    from kanana_jax.interop import model_folder

    model_folder.transfer(options.source, options.destination, keep_card=True)
    print(options.destination)


def _export(options, overrides, command) -> None:
    from kanana_jax.interop import model_folder

    model_folder.transfer(options.source, options.destination, keep_card=False)
    print(options.destination)


def _generate(options, overrides, command) -> None:
    from kanana_jax.inference.session import Session

    session = Session.load(options.model, options.dtype)
    for text in session.continue_texts(options.prompt, **_sampling(options)):
        print(text)


def _chat(options, overrides, command) -> None:
    from kanana_jax.inference.session import Session

    session = Session.load(options.model, options.dtype)
    messages: list[dict[str, str]] = []
    while True:
        try:
            line = input("you> " if sys.stdin.isatty() else "")
        except EOFError:
            return
        if not line.strip():
            continue
        messages.append({"role": "user", "content": line})
        answer = session.answer(messages, **_sampling(options))
        messages.append({"role": "assistant", "content": answer})
        print(answer)


def _sampling(options) -> dict:
    from kanana_jax.inference.sampling import SamplingConfig

    try:
        sampling = SamplingConfig(options.temperature, options.top_k, options.top_p)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return {"max_new_tokens": options.max_new_tokens, "sampling": sampling, "seed": options.seed}


def _filter(options, overrides: list[str], command: list[str]) -> None:
    from kanana_jax import config as config_lib
    from kanana_jax.data.filters import FilterConfig, job
    from kanana_jax.report.filters import write_filter_report

    config = config_lib.read_config_file(options.config)
    config_lib.override(config, overrides)
    if "filters" not in config:
        raise ConfigError(f"{options.config} has no section 'filters'")
    configs = {key: config_lib.build(FilterConfig, value, f"filters.{key}") for key, value in config.filters.items()}
    try:
        settings = job.JobConfig(
            options.workers, options.keep_dropped, options.signals, options.lang, options.max_broken_share
        )
    except ValueError as error:
        raise ConfigError(f"--{error}") from error
    with job.progress_bar() as progress:
        report = job.run(configs, options.input, options.output, settings, progress)
    write_filter_report(options.output)
    print(f"{report['kept']} of {report['documents']} documents kept: {options.output / 'report.html'}")


def _dedup(options, overrides: list[str], command: list[str]) -> None:
    from kanana_jax.data.dedup import local, minhash

    try:
        hashing = minhash.MinHashConfig(options.bands, options.rows, seed=options.seed)
    except ValueError as error:
        raise ConfigError(f"--bands, --rows: {error}") from error
    config = local.DedupConfig(hashing, options.keep, options.quality, options.lang)

    def show(count: int) -> None:
        print(f"\r{count:,} documents", end="", file=sys.stderr, flush=True)

    if options.beam:
        from kanana_jax.data.dedup import beam

        report = beam.run(config, options.input, options.output, options.beam)
    else:
        report = local.run(config, options.input, options.output, show if sys.stderr.isatty() else None)
    print(
        f"{report['kept']} of {report['documents']} documents kept "
        f"({report['exact']} exact, {report['near']} near duplicates): {options.output / 'duplicates.jsonl'}"
    )


def _thresholds(options, overrides: list[str], command: list[str]) -> None:
    from kanana_jax import config as config_lib
    from kanana_jax.data import records
    from kanana_jax.data.filters import FilterConfig, fitting
    from kanana_jax.workdir import write_json

    tables, configs = {}, {}
    for lang, file, inputs in (
        ("en", options.english_config, options.english),
        (options.lang, options.config, options.input),
    ):
        section = config_lib.read_config_file(file).get("filters", {}).get(lang)
        if section is None:
            raise ConfigError(f"{file} has no section filters.{lang}")
        configs[lang] = config_lib.build(FilterConfig, section, f"filters.{lang}")
        documents = (r for path in inputs for r in records.read(path, source=lang) if isinstance(r, dict))
        tables[lang] = fitting.measure_all(configs[lang], documents)
    english, target = configs["en"].rules, configs[options.lang].rules
    rules = {name: rule for name, rule in english.items() if name in target and target[name].signal == rule.signal}
    write_json(options.output, fitting.document(rules, tables["en"], tables[options.lang], options.describe))
    print(options.output)


def _tokenizer(options, overrides, command) -> None:
    from kanana_jax.data import records
    from kanana_jax.data.tokenizer_training import TokenizerConfig, train_sentencepiece

    texts = {}
    for item in options.input:
        lang, equals, path = item.partition("=")
        if not equals:
            raise ConfigError(f"--input '{item}' must be LANG=PATH")
        texts[lang] = records.Texts(path)
    config = TokenizerConfig(
        vocab_size=options.vocab_size, model_type=options.model_type, train_bytes=options.train_bytes
    )
    train_sentencepiece(texts, config, options.output)
    print(options.output / "tokenizer.model")
