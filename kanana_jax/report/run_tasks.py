"""Benchmarks in a run's report, as they were evaluated while stages trained."""

from kanana_jax.report.page import Block, Figure, Table
from kanana_jax.report.plots import Series, lines
from kanana_jax.report.run_stages import Stage, Tree


def task_blocks(tree: Tree, tokens: str) -> list[Block]:
    """Benchmarks that ran while stages trained: one figure per metric, one line per task and stage, and their average.

    Args:
      tokens: title of the axis.
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
    """The mean of the first metrics of tasks at a stage's last evaluation."""
    found = stage.evals[-1]["eval"]["tasks"]
    return sum(_main(found[task]) for task in tasks) / len(tasks)


def _average(tree: Tree) -> list[Block]:
    """A row for each stage, over the tasks that all of them have evaluated; scores from 0 to 1 only."""
    stages = [stage for stage in tree.trained() if stage.evals and stage.evals[-1]["eval"].get("tasks")]
    if len(stages) < 2:
        return []
    values = [stage.evals[-1]["eval"]["tasks"] for stage in stages]
    tasks = [task for task in values[0] if all(task in own and 0 <= _main(own[task]) <= 1 for own in values)]
    if len(tasks) < 2:
        return []
    rows = [(stage.name, average(stage, tasks), len(tasks)) for stage in stages]
    caption = f"Mean of the first metric, from 0 to 1, of {', '.join(tasks)} at each stage's last evaluation."
    return [Table(("stage", "average of tasks", "tasks"), rows, caption, formats={"average of tasks": ".3f"})]


def _main(metrics: dict[str, float]) -> float:
    return next((value for name, value in metrics.items() if not name.endswith("_stderr")), -1.0)
