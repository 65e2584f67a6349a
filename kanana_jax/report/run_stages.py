"""The stages of a run for its report: their files, and the tree of stages by starting point."""

import json
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kanana_jax.files import read_json
from kanana_jax.report import evaluation
from kanana_jax.report.plots import Series

Json = dict[str, Any]


class Stage:
    """The files of one stage.

    Attributes:
      parent: the stage that it starts from; None if it starts from scratch or from a folder.
      start: the parent, or the folder, or `scratch`.
      others: the other stages named in its section: a teacher, a reward model, merged models.
      evaluated: results on other models, if it is an evaluation stage.
      steps, evals: training and evaluation lines of `metrics.jsonl`.
      state: the state in words.
    """

    def __init__(self, folder: pathlib.Path, name: str, config: Json, names: Sequence[str], results: Mapping[str, str]):
        self.name, self.config, self.kind = name, config, config.get("kind", "")
        self.start = config.get("start", "scratch")
        self.parent = self.start if self.start in names else None
        self.others = [other for other in names if other in _named(config) and other not in (name, self.start)]
        self.evaluated = read_json(folder / evaluation.RESULT) or {}
        rows = json_lines(folder / "metrics.jsonl")
        self.steps = [row for row in rows if "eval" not in row]
        self.evals = [row for row in rows if "eval" in row]
        self.card = read_json(folder / "model" / "model.json")
        self.data = read_json(folder / "data_report.json")
        self.samples = read_json(folder / "samples.json", list) or []
        self.samples_before = read_json(folder / "samples_before.json", list) or []
        self.finished = (folder / results.get(self.kind, "model/model.json")).is_file()
        self.state = self._state()

    def _state(self) -> str:
        if self.finished:
            return "finished"
        if not self.steps:
            return "not started"
        train, last = self.config.get("train", {}), self.steps[-1]
        total = -(-train["tokens"] // train["batch_tokens"]) if train.get("batch_tokens") else 0
        left = last.get("eta_s")
        return f"step {last['step']:,} of {total:,}" + (f", {duration(left)} left" if left else "")

    @property
    def tokens(self) -> int:
        """Number of tokens that the stage has trained on."""
        return self.steps[-1]["tokens"] if self.steps else 0

    @property
    def seconds(self) -> float:
        """Time in training steps, without compilation, evaluation and checkpoints."""
        pairs = zip(self.steps, self.steps[1:])
        return sum(row.get("step_s", 0.0) * (row["step"] - before["step"]) for before, row in pairs)

    @property
    def flops(self) -> float:
        """FLOPs of training, including other models that ran for it; 0 until the stage is finished."""
        return sum(self.card["flops"].values()) if self.card else 0.0

    def bits(self, which: int = -1) -> dict[str, float]:
        """Language → held-out bits per byte at the last (`which=-1`) or first (`0`) evaluation."""
        found = [row["eval"]["bits_per_byte"] for row in self.evals if row["eval"].get("bits_per_byte")]
        values = found[which] if found else {}
        return {key.removeprefix("lang/"): value for key, value in values.items() if key.startswith("lang/")}

    def score(self) -> Json:
        """The score by which the last evaluation ranks checkpoints: name, value, direction; empty if there is none."""
        return self.evals[-1].get("score", {}) if self.evals else {}


class Tree:
    """The stages of a run as a tree, with the tokens on the path to each."""

    def __init__(self, stages: Mapping[str, Stage]):
        self.stages = stages
        self.before = {name: self._before(stage) for name, stage in stages.items()}

    def _before(self, stage: Stage) -> int:
        """Number of tokens that the ancestors of a stage have trained on."""
        parent = self.stages.get(stage.parent or "")
        return 0 if parent is None else self._before(parent) + parent.tokens

    def trained(self) -> list[Stage]:
        """The stages with at least one logged step, in tree order."""
        return [stage for _, stage in self.walk() if stage.steps]

    def baseline(self, stage: Stage) -> Stage | None:
        """The nearest ancestor of a stage that was evaluated."""
        while stage.parent is not None:
            stage = self.stages[stage.parent]
            if stage.bits():
                return stage
        return None

    def walk(self, parent: str | None = None, lead: str = "") -> Iterator[tuple[str, Stage]]:
        """Yields each stage below `parent`, preceded by the characters that draw its branch."""
        children = [stage for stage in self.stages.values() if stage.parent == parent]
        for i, stage in enumerate(children):
            last = i == len(children) - 1
            yield ("" if parent is None else f"{lead}{'└─ ' if last else '├─ '}"), stage
            yield from self.walk(stage.name, "" if parent is None else lead + ("   " if last else "│  "))

    def answered(self) -> tuple[list[str], dict[str, tuple[float, float | None]]]:
        """The tasks common to all models of the last evaluation stage, and model → (mean score, standard error)."""
        asked = [stage.evaluated["models"] for stage in self.stages.values() if stage.evaluated.get("models")]
        tasks, scores = evaluation.table(asked[-1]) if asked else ([], {})
        return tasks, {name: evaluation.mean(found, tasks) for name, found in scores.items()} if tasks else {}

    def drawing(self) -> str:
        """The tree as lines of text."""
        lines = []
        for lead, stage in self.walk():
            origin = "" if stage.parent or stage.start == "scratch" else f"from {stage.start}"
            size = f"{stage.card['parameters']:,} parameters" if stage.card else ""
            tokens = f"{stage.tokens:,} tokens" if stage.tokens else ""
            words = [word for word in (stage.kind, origin, stage.state, size, tokens) if word]
            lines.append(f"{lead}{stage.name}: {', '.join(words)}")
        return "\n".join(lines)

    def curves(self, key: str) -> list[Series]:
        """A logged metric against tokens (millions): one line per stage, which starts where its parent ended."""
        series = []
        for stage in self.trained():
            rows = [row for row in stage.steps if row.get(key) is not None]
            if rows:
                x = [self.at(stage, row) for row in rows]
                series.append(Series(stage.name, x, [row[key] for row in rows]))
        return series

    def at(self, stage: Stage, row: Json) -> float:
        """Tokens (millions) trained on up to a line of a stage's metrics, ancestors included."""
        return (self.before[stage.name] + row["tokens"]) / 1e6


def _named(section: Any) -> set[str]:
    """All strings in a config section, except its kind."""
    if isinstance(section, dict):
        return set().union(*(_named(value) for key, value in section.items() if key != "kind"))
    if isinstance(section, list):
        return set().union(*map(_named, section))
    return {section} if isinstance(section, str) else set()


def duration(seconds: float) -> str:
    """Formats a duration in a suitable unit."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:,.1f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"


def json_lines(path: pathlib.Path) -> list[Json]:
    """The lines of a file such as `metrics.jsonl`; empty if there is no file."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            rows.append(json.loads(line))
        except ValueError:  # an incomplete line that is still being written
            continue
    return rows
