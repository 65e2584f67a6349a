"""The verb `eval`."""

import argparse
import math
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from kanana_jax.cli.verbs import AddVerb, place
from kanana_jax.errors import ConfigError, UserError, install

_EXAMPLE = """example:
  kanana eval runs/tiny/stage2 --tasks microworld --output results/stage2.json
  kanana eval Llama-3.2-1B --tasks mmlu,gsm8k --data-dir DATA --limit 50 --output results/llama.json
  kanana eval runs/tiny/stage2 --tasks humaneval,mbpp --data-dir DATA --output results/code.json
  kanana eval runs/sft/sft --tasks faq.jsonl --chat --output results/faq.json
  kanana eval runs/sft/sft --tasks functionchat_singlecall,functionchat_dialog --data-dir FUNCTIONCHAT --output fc.json
  kanana eval --compare results/stage1.json results/stage2.json
  kanana eval --plot out.html results/*.json

Tasks are named as in lm-evaluation-harness; with --data-dir, those of docs/evaluation.md are read from local files.
A file is a set of your own questions, a line each: question with choices and answer; or answer; or answers; or
reference. 'kanana tasks faq.jsonl' shows how it is understood."""

# Sets of function calls, which the harness does not know.
_CALLS = ("functionchat_", "bfcl_")


def add_verbs(verb: AddVerb) -> None:
    """Adds `eval`."""
    sub = verb("eval", _eval, "evaluate a model, or compare two results", _EXAMPLE)
    sub.add_argument(
        "models", nargs="*", metavar="MODEL", help="model, stage or Hugging Face folder; result files with --plot"
    )
    sub.add_argument("--tasks", metavar="A,B", help="names of tasks, and files of own questions, separated by commas")
    sub.add_argument("--output", type=place, metavar="FILE.json", help="file of the results")
    sub.add_argument("--data-dir", type=place, metavar="DIR", help="folder of local evaluation sets")
    sub.add_argument("--limit", type=int, metavar="N", help="most documents per task (or part of a task)")
    sub.add_argument("--shots", type=int, metavar="N", help="examples in the prompt; default: the task's own")
    sub.add_argument("--chat", action="store_true", help="ask in the model's chat format")
    sub.add_argument(
        "--add-bos",
        action=argparse.BooleanOptionalAction,
        help="put BOS before a text, or not; default: as the model's tokenizer does",
    )
    sub.add_argument("--free-calls", action="store_true", help="function calls without a grammar, to see what it adds")
    sub.add_argument("--batch-size", type=int, default=16, metavar="N", help="rows per forward pass")
    sub.add_argument("--seed", type=int, default=0, metavar="S", help="seed of the examples and of sampling")
    sub.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="dtype of the computation")
    sub.add_argument(
        "--training-flops",
        type=float,
        metavar="X",
        help="training FLOPs of the model, for --plot; default: from its model.json and its parents'",
    )
    sub.add_argument(
        "--plot",
        type=place,
        metavar="OUT",
        help="plot scores against training FLOPs from result files, to .html or .svg",
    )
    sub.add_argument("--compare", nargs=2, type=place, metavar=("A.json", "B.json"), help="compare two result files")


def _eval(options: argparse.Namespace, overrides: list[str], command: list[str]) -> None:
    _refuse_idle(options)
    if options.compare:
        _compare(*options.compare)
        return
    if options.plot:
        _plot([place(name) for name in options.models], options.plot)
        return
    if len(options.models) != 1:
        raise ConfigError("'kanana eval' needs one MODEL (see --help)")
    for name in ("tasks", "output"):
        if getattr(options, name) is None:
            raise ConfigError(f"'kanana eval' needs --{name} (see --help)")
    (path,) = options.models
    names = _checked(options)
    from kanana_jax.evaluation.results import Unscored
    from kanana_jax.files import locked, write_json, write_lines

    unscored = samples_file(options.output, "unscored")
    with locked(options.output, folder=False):
        about = _about(path, options.training_flops)  # what could fail, before hours are spent
        try:
            found = (_called if _are_calls(names[0]) else _evaluated)(path, names, options)
        except Unscored as error:
            write_lines(unscored, error.samples)
            raise UserError(f"{error}; {unscored} has what the model answered, without scores") from error
        settings = {"model": path, "limit": options.limit, "chat": options.chat, "dtype": options.dtype}
        settings |= {"seed": options.seed, "add_bos": options.add_bos, "command": command}
        settings |= {"free_calls": True} if options.free_calls else {}
        write_lines(samples_file(options.output), found.pop("samples"))
        write_json(options.output, {**found, "model": about, "settings": settings})
        unscored.unlink(missing_ok=True)  # of an earlier run
    _show(("task", "metric", "value", "±", "n", "shots"), _rows(found["results"]))
    print(options.output)


def _are_calls(name: str) -> bool:
    return name.startswith(_CALLS) and "." not in name  # own questions are in a file


def _called(path: str, names: list[str], options: argparse.Namespace) -> dict[str, Any]:
    """`_evaluated` of sets of function calls."""
    from kanana_jax.applications import call_benchmarks
    from kanana_jax.inference.session import Session

    if options.data_dir is None:
        raise ConfigError(f"{names[0]} is read from the folder of its files: name it by --data-dir")
    asked = call_benchmarks.find(names, options.data_dir, options.limit)
    session = Session.load(path, options.dtype, add_bos=options.add_bos)
    return call_benchmarks.evaluate(session, asked, batch_size=options.batch_size, constrained=not options.free_calls)


def samples_file(output: pathlib.Path, kind: str = "samples") -> pathlib.Path:
    """Path of the prompts and answers that belong to a results file."""
    return output.with_name(f"{output.name.removesuffix('.json')}.{kind}.jsonl")


# What has its default with --compare and with --plot (which reads MODELs): it would do nothing there.
_IDLE: dict[str, Any] = {
    "models": [],
    "chat": False,
    "free_calls": False,
    "batch_size": 16,
    "seed": 0,
    "dtype": "float32",
    "add_bos": None,
}
_IDLE |= dict.fromkeys(("tasks", "output", "data_dir", "limit", "shots", "training_flops", "plot"))


def _refuse_idle(options: argparse.Namespace) -> None:
    """Raises a ConfigError for an option that does nothing with --compare or --plot."""
    mode = "compare" if options.compare else "plot" if options.plot else None
    for name, default in _IDLE.items() if mode else ():
        read = name == mode or (mode == "plot" and name == "models")
        if not read and getattr(options, name) != default:
            option = "MODEL" if name == "models" else f"--{name.replace('_', '-')}"
            raise ConfigError(f"{option} has no effect with --{mode}: leave it out")


def _evaluated(path: str, names: list[str], options: argparse.Namespace) -> dict[str, Any]:
    """Model fields of a result of `evaluation.run.evaluate`."""
    try:
        import lm_eval  # noqa: F401
    except ImportError as error:
        raise UserError(f"evaluation needs lm-evaluation-harness ({error}): {install('eval')}") from error
    from kanana_jax.data.tokens.tokenizer import load_tokenizer
    from kanana_jax.evaluation import run
    from kanana_jax.evaluation.harness import HarnessModel
    from kanana_jax.inference.session import Session
    from kanana_jax.interop import model_folder

    model_folder.open_weights(model_folder.find(path))  # before the harness looks for tasks
    tasks = run.find(names, options.data_dir, options.shots, options.chat)
    if options.chat or tasks.chat:
        load_tokenizer(model_folder.find(path).path).chat.template()
    model = HarnessModel(
        Session.load(path, options.dtype, add_bos=options.add_bos),
        batch_size=options.batch_size,
        seed=options.seed,
        shows_progress=True,
    )
    return run.evaluate(
        model,
        names,
        data_dir=options.data_dir,
        limit=options.limit,
        shots=options.shots,
        chat=options.chat,
        seed=options.seed,
        found=tasks,
    )


def _checked(options: argparse.Namespace) -> list[str]:
    """The names of the tasks.

    Raises:
      ConfigError: an option that would fail only after the model is loaded, or after hours.
    """
    for name, least in (("limit", 1), ("batch_size", 1), ("shots", 0), ("seed", 0)):
        if getattr(options, name) is not None and getattr(options, name) < least:
            raise ConfigError(f"--{name.replace('_', '-')} must be at least {least}")
    if options.seed >= 2**32:
        raise ConfigError("--seed must be below 2**32")
    if options.training_flops is not None and not 0 < options.training_flops < math.inf:
        raise ConfigError("--training-flops must be a positive number such as 1e21")
    out = options.output
    if out.is_dir():
        raise ConfigError(f"--output {out} is a folder: name a file in it, such as {out / 'results.json'}")
    above = next(folder for folder in out.absolute().parents if folder.exists())
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        raise ConfigError(f"--output {out} cannot be written: {above} is not a folder that you may write to")
    names = [name.strip() for name in options.tasks.split(",") if name.strip()]
    if not names:
        raise ConfigError("--tasks names no task (see --help)")
    if any(out.absolute() == pathlib.Path(name).absolute() for name in names):
        raise ConfigError(f"--output {out} is a file of questions among --tasks: name another file")
    calls = [name for name in names if _are_calls(name)]
    if calls and len(calls) < len(names):
        raise ConfigError(f"--tasks: ask {calls[0]} and other function calls in a run of their own")
    for option in ("shots", "chat"):
        if calls and getattr(options, option) not in (None, False):
            raise ConfigError(f"--{option} has no effect on {calls[0]}, which is always a chat: leave it out")
    if options.free_calls and not calls:
        raise ConfigError("--free-calls is for function calls (functionchat_…, bfcl_…): leave it out")
    return names


def _about(path: str, flops: float | None) -> dict[str, Any]:
    """The model's size, and the cost of its training: `lineage.training_cost`, or the FLOPs that are given."""
    from kanana_jax.interop import model_folder
    from kanana_jax.interop.lineage import lineage, training_cost
    from kanana_jax.stages import score_tables

    found = model_folder.find(path)
    about = training_cost(found)
    if about["tokens"]:  # trained here
        about |= score_tables.known_tokens(list(lineage(found)))
    if flops is None:
        return about
    told = ("parameters", "tokens", "tokens_by_language", "from_elsewhere")
    return {key: about[key] for key in told if key in about} | dict.fromkeys(
        ("training_flops", "training_flops_own"), flops
    )


def _plot(files: list[pathlib.Path], out: pathlib.Path) -> None:
    from kanana_jax.evaluation import compare
    from kanana_jax.report.evaluation import write_plot

    if not files:
        raise ConfigError("'kanana eval --plot' needs result files: kanana eval --plot out.html a.json b.json")
    if out.suffix not in (".html", ".svg"):
        raise ConfigError(f"--plot {out}: the name must end in .html or .svg")
    results = {file: compare.read(file) for file in files}
    names = _names(files)
    families = {names[file]: file.resolve().parent.name for file in files}
    try:
        print(write_plot({names[file]: value for file, value in results.items()}, families, out))
    except ValueError as error:
        raise ConfigError(f"--plot: {error}") from error


def _rows(results: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, ...]]:
    """One row per task and metric."""
    for task, result in results.items():
        for metric, value in result.items():
            if isinstance(value, float) and not metric.endswith("_stderr"):
                error = result.get(f"{metric}_stderr")
                yield (
                    task,
                    metric,
                    f"{value:.4f}",
                    "" if error is None else f"{error:.4f}",
                    str(result["n"]),
                    str(result.get("shots", "")),
                )


def _compare(a: pathlib.Path, b: pathlib.Path) -> None:
    from kanana_jax.evaluation import compare

    one, two = (compare.read(file, ("prompts",)) for file in (a, b))
    rows = compare.compare(one, two)
    heads = _names([a, b])
    _show(
        ("task", "metric", heads[a], heads[b], "difference", "95% interval", "n"),
        (
            (
                r.task,
                r.metric,
                f"{r.a:.4f}",
                f"{r.b:.4f}",
                f"{r.difference:+.4f}",
                f"{r.low:+.4f} … {r.high:+.4f}",
                str(r.n),
            )
            for r in rows
        ),
    )
    if left := compare.unscored(one, two, rows):
        print(f"in both, without a score by document: {', '.join(left)}")


def _names(files: list[pathlib.Path]) -> dict[pathlib.Path, str]:
    """File → its name, with as many folders above it as distinguish files of the same name."""
    parts = {file: file.absolute().with_suffix("").parts[1:] for file in files}
    for depth in range(1, max(map(len, parts.values())) + 1):
        names = {file: "/".join(p[-depth:]) for file, p in parts.items()}
        if len(set(names.values())) == len(names):
            break
    return names


def _show(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Column, Table

    # A narrow terminal folds what does not fit: of names cut short, several would look the same.
    table = Table(*(Column(name, overflow="fold") for name in columns))
    for row in rows:
        table.add_row(*row)
    Console(markup=False).print(table)  # names of tasks come from rows: '[/]' in one is text
