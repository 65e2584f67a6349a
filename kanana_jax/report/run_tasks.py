"""Benchmarks in a run's report that were evaluated during training."""

from kanana_jax.report import evaluation
from kanana_jax.report.page import Block, Figure, Table
from kanana_jax.report.plots import Series, lines
from kanana_jax.report.run_stages import Stage, Tree


def task_blocks(tree: Tree, tokens: str) -> list[Block]:
    """Benchmarks evaluated during training: one figure per metric with a line per task and stage, and their average.

    Args:
      tokens: title of the axis of tokens.
    """
    points: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for stage in tree.trained():
        for row in stage.evals:
            for task, metrics in row["eval"].get("tasks", {}).items():
                for metric, value in metrics.items():
                    if not metric.endswith("_stderr"):
                        line = points.setdefault(metric, {}).setdefault(f"{task}, {stage.name}", [])
                        line.append((tree.at(stage, row), value))
    figures: list[Block] = [
        Figure(
            lines(
                [Series(label, [x for x, _ in xy], [y for _, y in xy]) for label, xy in named.items()],
                x=tokens,
                y=metric,
                markers=True,
            ),
            f"Tasks evaluated while training: {metric}.",
        )
        for metric, named in points.items()
    ]
    return [*figures, *_average(tree)]


def average(stage: Stage, tasks: list[str]) -> float:
    """The mean score of tasks at a stage's last evaluation, from 0 to 1."""
    found = stage.evals[-1]["eval"]["tasks"]
    return sum(_score(found[task]) for task in tasks) / len(tasks)


def _average(tree: Tree) -> list[Block]:
    """A row per stage: the average over tasks that all stages evaluated and that have a score from 0 to 1."""
    stages = [stage for stage in tree.trained() if stage.evals and stage.evals[-1]["eval"].get("tasks")]
    if len(stages) < 2:
        return []
    values = [stage.evals[-1]["eval"]["tasks"] for stage in stages]
    tasks = [task for task in values[0] if all(task in own and 0 <= _score(own[task]) <= 1 for own in values)]
    if len(tasks) < 2:
        return []
    rows = [(stage.name, average(stage, tasks), len(tasks)) for stage in stages]
    named = ", ".join(f"{task} ({evaluation.metric(values[0][task])})" for task in tasks)
    caption = (
        f"Mean of {named} at each stage's last evaluation, each from 0 to 1 (per cent divided by 100) and counting the "
        "same; what guessing would score is not taken off."
    )
    return [Table(("stage", "average of tasks", "tasks"), rows, caption, formats={"average of tasks": ".3f"})]


def _score(metrics: dict[str, float]) -> float:
    """A task's score as `kanana eval --plot` shows it; negative if it has no such metric."""
    found = evaluation.score(metrics)
    return -1.0 if found is None else found[0]
