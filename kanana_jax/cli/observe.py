"""The verb `observe`: the value of a local-language token budget, from a table of scores."""

import argparse
import pathlib
from typing import Any

from kanana_jax.cli.verbs import AddVerb, place
from kanana_jax.errors import ConfigError, UserError, install

_EXAMPLE = """examples:
  kanana observe --output study                       # 35 models, 10 Japanese and 9 English benchmarks, shipped
  kanana observe --output plan --plan base=Llama-3-8B,params=8e9,ja_tokens=100e9
  kanana observe --output plan --plan base=Llama-3-8B --target NIILC=0.55
  kanana observe --output plan --plan base=Llama-3-8B,ja_tokens=100e9 --cost plan.json   # of kanana plan --json
  kanana observe --template --output korean           # published Korean scores, to add your models to
  kanana observe korean/scores.csv --output korean/study
  kanana observe results/*.json --models models.csv --output own    # results of 'kanana eval', or of others

DIR gets components.json, report.html, plots/ and .csv files. Observational, not causal."""


def add_verbs(verb: AddVerb) -> None:
    """Adds the verb."""
    observe = verb(
        "observe", _observe, "relate scores of many models to their token budgets by language, and plan one", _EXAMPLE
    )
    observe.add_argument(
        "scores",
        nargs="*",
        type=place,
        metavar="SCORES",
        help="one table (.csv), or result files (.json), or folders of them; default: the shipped study",
    )
    observe.add_argument("--output", required=True, type=place, metavar="DIR", help="folder of the report and its data")
    observe.add_argument(
        "--models", type=place, metavar="MODELS.csv", help="table of models; default: beside the scores"
    )
    observe.add_argument("--tasks", type=place, metavar="TASKS.csv", help="table of tasks; default: beside the scores")
    observe.add_argument("--ignore", default="", metavar="A,B", help="score columns that are not tasks")
    observe.add_argument(
        "--language",
        default="",
        metavar="L",
        help="local language; default: the language with the most tasks other than --reference",
    )
    observe.add_argument("--reference", default="en", metavar="L", help="main training language of the models")
    observe.add_argument("--active-params", action="store_true", help="count active parameters for MoE models")
    observe.add_argument(
        "--plan",
        default="",
        metavar="base=M,params=N,L_tokens=N",
        help="predict the effect of training M on N more tokens",
    )
    observe.add_argument(
        "--target",
        default="",
        metavar="TASK=VALUE",
        help="find the tokens needed to reach a score (with --plan base=M)",
    )
    observe.add_argument(
        "--cost",
        type=place,
        metavar="PLAN.json",
        help="days and cost of --plan, from the file that kanana plan --json wrote for the training stage",
    )
    observe.add_argument(
        "--flops-cutoff",
        type=float,
        default=0.6,
        metavar="Q",
        help="fit downstream laws below this quantile of training FLOPs",
    )
    observe.add_argument(
        "--draws", type=int, default=2000, metavar="N", help="number of bootstrap and Monte Carlo samples"
    )
    observe.add_argument("--seed", type=int, default=0, metavar="S", help="seed of resampling")
    observe.add_argument("--template", action="store_true", help="only write published Korean scores into DIR")


def _observe(options: argparse.Namespace, overrides: list[str], command: list[str]) -> None:
    try:
        from kanana_jax.observatory import output, result_files, study, tables
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("kanana_jax"):
            raise
        raise UserError(f"kanana observe needs {error.name}: {install('observatory')}") from error
    from kanana_jax.files import mirrored, write_json
    from kanana_jax.report import observatory as report

    if options.template:
        if options.scores or options.plan or options.target or options.cost:
            raise ConfigError("--template only writes tables: leave out SCORES.csv and what is asked of them")
        _template(tables.shipped("korean_template"), options.output)
        return
    if not options.scores and (options.models or options.tasks):
        raise ConfigError("--models and --tasks belong to a SCORES.csv: name it first")
    wishes = study.Options(
        language=options.language,
        reference=options.reference,
        active_params=options.active_params,
        draws=options.draws,
        seed=options.seed,
        cutoff=options.flops_cutoff,
        plan=options.plan,
        target=options.target,
        cost=options.cost,
    )
    ignore = [name.strip() for name in options.ignore.split(",") if name.strip()]
    gathered = None
    if not options.scores or (len(options.scores) == 1 and _is_table(options.scores[0])):
        scores = options.scores[0] if options.scores else tables.shipped() / "scores.csv"
        read = tables.read(scores, options.models, options.tasks, ignore)
    else:
        if ignore:
            raise ConfigError("--ignore is for columns of a table: of results, --tasks TASKS.csv lists what counts")
        files = result_files.found(options.scores)
        gathered = result_files.gather(files, result_files.listed(options.models))
        read = result_files.read(gathered, options.models, options.tasks, _called(files))
    with mirrored(options.output) as folder:
        if gathered is not None:
            own, given = options.output / "tables", [t for t in (options.models, options.tasks) if t is not None]
            kept = [table.name for table in given if table.resolve().parent == own.resolve()]
            made = {n: text for n, text in result_files.texts(gathered, options.models).items() if n not in kept}
            result_files.write(folder / "tables", made, own)
        result = study.run(read, wishes)
        write_json(folder / "components.json", {"command": " ".join(command), **result})
        output.write_csvs(read, result, folder)
        page = options.output / report.write_observatory_report(folder).name
    first, *others = report.answer(result)
    print(first)
    rivals = report.rivals(result) if "plan" in result else None
    if rivals:
        print()
        _print_rows([rivals.columns, *rivals.rows])
        print()
    for sentence in others:
        print(sentence)
    for sentence in result["warnings"]:
        print(f"mind: {sentence}")
    if "plan" in result:
        _print_plan(result["plan"])
    print(result["evidence"])
    print(page)


def _print_rows(rows: list[Any]) -> None:
    """Prints cells of text in columns, the first to the left."""
    wide = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for first, *rest in rows:
        print("  ".join([first.ljust(wide[0]), *(cell.rjust(w) for cell, w in zip(rest, wide[1:]))]))


def _is_table(place_: pathlib.Path) -> bool:
    return place_.suffix != ".json" and not place_.is_dir()


def _called(files: list[pathlib.Path]) -> pathlib.Path:
    """The result files' name in messages."""
    return files[0] if len(files) == 1 else files[0].with_name(f"{files[0].name} and {len(files) - 1} more")


def _print_plan(plan: dict[str, Any]) -> None:
    """Prints the predicted change of every measure."""
    rows = plan.get("measures", ())
    wide = max((len(row["measure"]) for row in rows), default=0)
    if rows:
        print(f"{'':{wide}} {'before':>8} {'change':>8}  (95% prediction interval)")
    for row in rows:
        low, high = row["gain_ci95"]
        note = f"  extrapolates: {'; '.join(row['extrapolates'])}" if row["extrapolates"] else ""
        print(f"{row['measure']:{wide}} {row['before']:8.3f} {row['gain']:+8.3f}  ({low:+.3f} to {high:+.3f}){note}")
    for sentence in plan["warnings"]:
        print(sentence)


def _template(source: pathlib.Path, folder: pathlib.Path) -> None:
    from kanana_jax.files import as_user_error, locked

    with locked(folder), as_user_error(folder):
        for file in sorted(source.iterdir()):
            if (folder / file.name).exists():
                raise ConfigError(f"{folder / file.name} exists: choose another folder, so that nothing is overwritten")
        for file in sorted(source.iterdir()):
            (folder / file.name).write_bytes(file.read_bytes())
    for file in sorted(source.iterdir()):
        print(folder / file.name)
