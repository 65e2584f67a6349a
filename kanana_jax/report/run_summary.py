"""The summary of a run's report: results, cost, and where the models are."""

from typing import Any

from kanana_jax.report.page import Block, Code, Details, KeyValues, Table, Text
from kanana_jax.report.run_stages import Stage, Tree, duration

Json = dict[str, Any]


def summary_blocks(tree: Tree, run: Json) -> list[Block]:
    """The newest evaluated model compared with its baseline, totals, a row per stage, and the tree of stages.

    Args:
      run: the content of `config.json`.
    """
    newest_first = list(reversed(list(tree.stages.values())))
    shown = next((stage for stage in newest_first if stage.bits() or stage.score()), None)
    text = next((stage for stage in newest_first if stage.bits()), None)
    blocks: list[Block] = []
    if text is not None and (shown is text or len(tree.stages) > 2):
        blocks += _in_bits(tree, text)
    if shown is not None and shown is not text:
        blocks += _scored(shown)
    made = _made(tree)
    if made:
        blocks += [_totals(tree, run), _table(tree, run, made)]
    drawing = Code(tree.drawing())
    return [*blocks, Details("Which stage starts from which", [drawing]) if made else drawing]


def _made(tree: Tree) -> list[Stage]:
    """The stages that have trained or written a model, in tree order."""
    return [stage for _, stage in tree.walk() if stage.steps or stage.card]


def _in_bits(tree: Tree, shown: Stage) -> list[Block]:
    base = tree.baseline(shown)
    size = f", {shown.card['parameters']:,} parameters" if shown.card else ""
    beside = f"; in brackets '{base.name}', from which it comes" if base else ""
    before = base.bits() if base else {}
    values = {
        f"bits per byte, {lang} (lower is better)": f"{value:.3f}"
        + (f" ({before[lang]:.3f})" if lang in before else "")
        for lang, value in shown.bits().items()
    }
    return [Text(f"Stage '{shown.name}' ({shown.state}{size}){beside}."), KeyValues(values)]


def _scored(stage: Stage) -> list[Block]:
    """The scores, by language, of a stage that is not measured in bits per byte."""
    score, size = stage.score(), f", {stage.card['parameters']:,} parameters" if stage.card else ""
    name = score["name"]
    after = stage.evals[-1]["eval"].get(name, {})
    before = stage.evals[0]["eval"].get(name, {}) if stage.evals[0]["step"] == 0 else {}
    beside = "; in brackets the model that it starts from" if before else ""
    values = {
        f"{name.replace('_', ' ')}, {key.removeprefix('lang/')} ({score['better']} is better)": f"{value:.3f}"
        + (f" ({before[key]:.3f})" if key in before else "")
        for key, value in after.items()
        if key.startswith("lang/")
    }
    return [Text(f"Stage '{stage.name}' ({stage.state}{size}){beside}."), KeyValues(values)]


def _totals(tree: Tree, run: Json) -> KeyValues:
    stages = list(tree.stages.values())
    seconds = sum(stage.seconds for stage in stages)
    flops = sum(stage.flops for stage in stages)
    price = run["config"].get("report", {}).get("price", 0.0)
    values = {
        "stages finished": f"{sum(stage.finished for stage in stages)} of {len(stages)}",
        "tokens, all stages": f"{sum(stage.tokens for stage in stages):,}",
        "time in training steps": duration(seconds),
        "FLOPs of finished models": f"{flops:.3g}",
    }
    return KeyValues(values | ({"cost": f"{devices(run) * seconds / 3600 * price:,.2f}"} if price else {}))


def _table(tree: Tree, run: Json, stages: list[Stage]) -> Table:
    count, price = devices(run), run["config"].get("report", {}).get("price", 0.0)
    hours = count > 1 or bool(price)
    tasks, answered = tree.answered()
    rows = [
        (
            stage.name,
            _result(stage),
            *((_mean(*answered[stage.name]) if stage.name in answered else None,) if tasks else ()),
            stage.card["parameters"] if stage.card else None,
            stage.tokens or None,
            tree.before[stage.name] + stage.tokens,
            duration(stage.seconds) if stage.steps else None,
            stage.flops or None,
            *((count * stage.seconds / 3600,) if hours else ()),
            *((count * stage.seconds / 3600 * price,) if price else ()),
            "; with ".join([stage.start, *filter(None, [", ".join(stage.others)])]),
            f"{stage.name}/model" if stage.card else None,
        )
        for stage in stages
    ]
    columns = (
        "stage",
        "held out",
        *(("tasks ↑",) if tasks else ()),
        "parameters",
        "tokens",
        "with its parents'",
        "time",
        "FLOPs",
        *(("device-hours",) if hours else ()),
        *(("cost",) if price else ()),
        "starts from",
        "model in",
    )
    caption = (
        "↓ lower is better, ↑ higher. Times are of training steps, without compilation, evaluation and checkpoints; FLOPs "
        "with those of teachers, references, samplers and reward models."
    )
    if tasks:
        caption += f" Tasks: the mean of {', '.join(tasks)}, from 0 to 1, ± one standard error."
    return Table(columns, rows, caption, formats={"device-hours": ",.3f", "cost": ",.2f", "FLOPs": ".2g"})


def _result(stage: Stage) -> str | None:
    """The stage's last evaluation in words: bits per byte by language, or its own score."""
    bits, score = stage.bits(), stage.score()
    if bits:
        return f"bits per byte {', '.join(f'{lang} {value:.3f}' for lang, value in bits.items())} ↓"
    if not score:
        return None
    return f"{score['name'].replace('_', ' ')} {score['value']:.3f} {'↓' if score['better'] == 'lower' else '↑'}"


def _mean(value: float, error: float | None) -> str:
    return f"{value:.3f}" + (f" ± {error:.3f}" if error is not None else "")


def devices(run: Json) -> int:
    """Number of devices, parsed from the start of the run's `devices` text."""
    number = run["devices"].partition(" ")[0]
    return int(number) if number.isdecimal() else 1
