"""The verb `eval`."""

import pathlib
from collections.abc import Callable

from kanana_jax.config import ConfigError, UserError

_EXAMPLE = """example:
  kanana eval runs/tiny/stage2 --tasks microworld --output results.json
  kanana eval Llama-3.2-1B --tasks mmlu,gsm8k --data-dir DATA --limit 50 --output results.json
  kanana eval --compare a.json b.json

Tasks are lm-evaluation-harness's by name; with --data-dir those of docs/evaluation.md are read from local files."""


def add_verbs(verb: Callable) -> None:
    """Adds `eval`."""
    sub = verb("eval", _eval, "evaluate a model, or compare two results", _EXAMPLE)
    sub.add_argument("model", nargs="?", metavar="MODEL", help="model, stage or Hugging Face folder")
    sub.add_argument("--tasks", metavar="A,B", help="names, with commas")
    sub.add_argument("--output", type=pathlib.Path, metavar="FILE.json")
    sub.add_argument("--data-dir", type=pathlib.Path, metavar="DIR", help="folder of local evaluation sets")
    sub.add_argument("--limit", type=int, metavar="N", help="documents a task (or part of a task)")
    sub.add_argument("--shots", type=int, metavar="N", help="examples in the prompt; default: the task's own number")
    sub.add_argument("--chat", action="store_true", help="ask in the model's chat format")
    sub.add_argument("--batch-size", type=int, default=16, metavar="N", help="rows a forward pass")
    sub.add_argument("--seed", type=int, default=0, metavar="S", help="of the examples and of sampling")
    sub.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="of the computation")
    sub.add_argument("--compare", nargs=2, type=pathlib.Path, metavar=("A.json", "B.json"))


def _eval(options, overrides, command) -> None:
    if options.compare:
        _compare(*options.compare)
        return
    for name in ("model", "tasks", "output"):
        if getattr(options, name) is None:
            raise ConfigError(f"'kanana eval' needs {'MODEL' if name == 'model' else '--' + name} (see --help)")
    for name in ("limit", "batch_size"):
        if getattr(options, name) is not None and getattr(options, name) < 1:
            raise ConfigError(f"--{name.replace('_', '-')} must be at least 1")
    try:
        import lm_eval  # noqa: F401
    except ImportError as error:
        raise UserError(f"evaluation needs lm-evaluation-harness ({error}): pip install 'kanana-jax[eval]'") from error
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from kanana_jax.evaluation import run
    from kanana_jax.evaluation.harness import HarnessModel
    from kanana_jax.files import write_json
    from kanana_jax.inference.session import Session

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        model = HarnessModel(
            Session.load(options.model, options.dtype),
            batch_size=options.batch_size,
            seed=options.seed,
            progress=progress if console.is_terminal else None,
        )
        found = run.evaluate(
            model,
            [name for name in options.tasks.split(",") if name],
            data_dir=options.data_dir,
            limit=options.limit,
            shots=options.shots,
            chat=options.chat,
            seed=options.seed,
        )
    settings = {"model": options.model, "limit": options.limit, "chat": options.chat, "dtype": options.dtype}
    write_json(options.output, {**found, "settings": settings | {"seed": options.seed, "command": command}})
    _show(("task", "metric", "value", "±", "n", "shots"), _rows(found["results"]))
    print(options.output)


def _rows(results):
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

    rows = compare.compare(compare.read(a), compare.read(b))
    _show(
        ("task", "metric", a.stem, b.stem, "difference", "95% interval", "n"),
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


def _show(columns, rows) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(*columns)
    for row in rows:
        table.add_row(*row)
    Console().print(table)
