"""The observatory's inference on tables whose truth is known: coverage, false findings, power.

    python benchmarks/observatory_simulation.py --output simulation.jsonl [--tables 200] [--only noise]

Models, families, bases and token budgets are those of the shipped table; scores are drawn. `laws`: every task follows
one language's compute, with a family effect (a share of the variance that is drawn from 0 to 0.7 for each table) and an
own part that continual models inherit from their base (correlation 0.6). `gains`: continual models are their base and a
gain, with a mean by task, a family effect and an own part. `mixed`: both languages' compute, as in `laws`, and an
effect that a family's continual models share (standard deviation drawn from 0 to 0.5). `noise`: scores are independent
of everything, or of everything but the family; `components`: of the same tables. A fifth or two fifths of the cells are
then removed. All is computed by the functions of `kanana observe` (`gains`, the gain of a new pair: by
`observatory_gains.py`); a coverage is the share of all tasks of all tables whose 95% interval holds the truth. `power`:
one task of 19 has a gain, in standard deviations of the task; gains scatter by 0.35 of these, a third of the variance
by family. `verdicts`: the same by the mixed model, on models as in `mixed`, of which 4, 8 or all 15 continual ones are
kept. `sizes`: gains whose families are as unequal as in the shipped table, and nearly equal.

Every finished table is a line of the output and is not repeated: the same command resumes, and one with more tables
adds to them. Parts take turns, so that a stopped run has as many tables of each.

Seeds: table i of missing share m uses the streams [2026, kind, 100 m, i].
"""

import argparse
import dataclasses
import functools
import json
import pathlib
import time
from collections.abc import Callable

import numpy as np
import observatory_gains as gains_lib
import pandas as pd
from parts import read

from kanana_jax.observatory import (
    budgets,
    components,
    dimensions,
    effects,
    filling,
    jackknife,
    joint,
    laws,
    mixed,
    pairs,
    tables,
    verdicts,
)
from kanana_jax.observatory.options import Options

SEED = 2026
MISSING = (0.0, 0.2, 0.4)
OPTIONS = Options(draws=100)
NOISE_DRAWS = 200
LANGUAGES = ("en", "ja")
_MIXED = ("mixed slope", "mixed slope, mixture of t", "mixed, new family", "mixed, continual of a new family")
_KIN = ("families", "roots", "continual")
Held = dict[str, list[bool]]  # what is asked of a table → the answers of its tasks, or of the table
SIZES = {4: (1, 1, 1, 1), 8: (4, 2, 1, 1), 15: (8, 3, 3, 1)}  # pairs of the four families


@dataclasses.dataclass(frozen=True)
class Design:
    """What does not change from table to table.

    Attributes:
      member, base: int [models], the family's number, and the row of the base (−1: none).
      compute: float64 [2, models], log10 of compute by language; unknown budgets as in `undisclosed`.
    """

    read: tables.Tables
    member: np.ndarray
    base: np.ndarray
    compute: np.ndarray
    by_language: dict[str, budgets.Budget]

    @property
    def tasks(self) -> int:
        return self.read.scores.shape[1]

    def table(self, values: np.ndarray) -> tables.Tables:
        """The shipped tables with other scores."""
        scores = pd.DataFrame(values, self.read.scores.index, self.read.scores.columns)
        return dataclasses.replace(self.read, scores=scores)


def design() -> Design:
    read = tables.read(tables.shipped() / "scores.csv")
    read.tasks["items"] = float("nan")  # drawn scores have no items
    names = list(read.models.index)
    base = np.array([names.index(b) if b in names else -1 for b in read.models["base"]])
    by_language = {lang: budgets.budget(read, lang) for lang in LANGUAGES}
    compute = np.stack([np.where(b.known, b.est, np.nanmean(b.est)) for b in by_language.values()])
    return Design(read, np.unique(read.models["family"], return_inverse=True)[1], base, compute, by_language)


def scattered(known: Design, share: float, rng: np.random.Generator) -> np.ndarray:
    """Family effects and own parts of unit variance together, float64 [models, tasks]."""
    family = rng.normal(size=(known.member.max() + 1, known.tasks))[known.member]
    own = rng.normal(size=family.shape)
    child = known.base >= 0
    own[child] = 0.6 * own[known.base[child]] + 0.8 * own[child]
    return np.sqrt(share) * family + np.sqrt(1 - share) * own


def holes(values: np.ndarray, missing: float, rng: np.random.Generator) -> np.ndarray:
    return np.where(rng.random(values.shape) < missing, np.nan, values)


def of_laws(known: Design, missing: float, rng: np.random.Generator) -> Held:
    """Slopes, and predictions of a new model of a new family at the compute of a known one."""
    slope, which = rng.normal(0, 1, known.tasks), np.arange(known.tasks) % 2
    share = rng.uniform(0, 0.7)
    y = known.compute[which].T * slope + scattered(known, share, rng)
    table = known.table(holes(y, missing, rng))
    found = laws.every(table, table.scores, known.by_language, OPTIONS)
    inside: Held = {"slope": [], "slope_bootstrap": [], "prediction": []}
    for j, task in enumerate(table.scores.columns):
        budget = known.by_language[LANGUAGES[which[j]]]
        fit = found[task][LANGUAGES[which[j]]]
        if fit is None:
            continue
        if fit.ci95_family and fit.ci95_bootstrap:
            inside["slope"].append(_holds(fit.ci95_family, slope[j]))
            inside["slope_bootstrap"].append(_holds(fit.ci95_bootstrap, slope[j]))
        x = float(rng.choice(budget.est[budget.known]))
        _, low, high = fit.predict(x)
        inside["prediction"].append(_holds((float(low), float(high)), x * slope[j] + rng.normal()))
    return inside


def of_gains(known: Design, missing: float, rng: np.random.Generator) -> Held:
    """Mean gains, and predictions of the gain of a new pair of a new family."""
    y, share = scattered(known, 0.4, rng), rng.uniform(0, 0.7)
    mean, child = rng.normal(0, 0.7, known.tasks), known.base >= 0
    scatter = 0.4 * scattered(known, share, rng)
    y[child] = y[known.base[child]] + mean + scatter[child]
    table = known.table(holes(y, missing, rng))
    together = pairs.find(table, table.scores, "ja")
    summary = pairs.summary(together, OPTIONS.draws, rng)
    inside: Held = {"gain": [], "gain_bootstrap": [], "gain_of_a_new_pair": []}
    for j, task in enumerate(table.scores.columns):
        row = summary.get(task)
        if row and row["ci95_family"] and row["ci95_bootstrap"]:
            inside["gain"].append(_holds(row["ci95_family"], mean[j]))
            inside["gain_bootstrap"].append(_holds(row["ci95_bootstrap"], mean[j]))
        model = gains_lib.best(gains_lib.gain_models(together, task))
        if model is not None:
            level = float(rng.choice(together.before[task].dropna()))
            _, low, high = model.predict(float(rng.choice(together.tokens_b)), level)
            inside["gain_of_a_new_pair"].append(_holds((low, high), mean[j] + 0.4 * rng.normal()))
    return inside


def of_mixed(known: Design, missing: float, rng: np.random.Generator) -> Held:
    """The mixed model: slopes, a new model of a new family, and a continual one of it, its base measured."""
    x, kin = mixed.design(known.read, "ja", "en"), mixed.kin(known.read)
    share, recipe = rng.uniform(0, 0.7), rng.uniform(0, 0.5)
    slopes = rng.normal(0, 1, (known.tasks, 2))
    house = recipe * rng.normal(size=(known.member.max() + 1, known.tasks))  # what a family's continual models share
    child = known.base >= 0
    y = x[:, 1:] @ slopes.T + scattered(known, share, rng) + child[:, None] * house[known.member]
    scores = pd.DataFrame(holes(y, missing, rng), known.read.scores.index).add_prefix("m")
    found = joint.every(known.read, scores, "ja", "en")
    inside: Held = {key: [] for key in _MIXED}
    by_family = joint.slopes(found)
    new = mixed.Kin(np.array(["new"]), np.array(["new"]), np.array([False]))
    pair = mixed.Kin(new.families, new.roots, np.array([True]))
    for j, (name, model) in enumerate(found.models.items()):
        for c, lang in enumerate(LANGUAGES, 1):
            effect = model.effect(np.eye(3)[c])
            told = (float(effect.quantile(0.025)[0]), float(effect.quantile(0.975)[0]))
            inside[_MIXED[1]].append(_holds(told, slopes[j, c - 1]))
            if name in by_family:
                inside[_MIXED[0]].append(_holds(by_family[name][lang].ci95, slopes[j, c - 1]))
        at = rng.choice(np.flatnonzero(child))
        family, own = np.sqrt(share) * rng.normal(), np.sqrt(1 - share) * rng.normal()
        of_base = x[known.base[at], 1:] @ slopes[j] + family + own
        of_child = x[at, 1:] @ slopes[j] + family + 0.6 * own + 0.8 * np.sqrt(1 - share) * rng.normal()
        _, low, high = model.interval(model.foretell(x[[known.base[at]]], new))
        inside[_MIXED[2]].append(_holds((low[0], high[0]), of_base))
        joined = mixed.Kin(*(np.append(getattr(kin, key), getattr(new, key)) for key in _KIN))
        more = mixed.fit(np.vstack([x, x[known.base[at]]]), np.append(scores[name], of_base), joined)
        if more is not None:
            _, low, high = more.interval(more.foretell(x[[at]], pair))
            inside[_MIXED[3]].append(_holds((low[0], high[0]), of_child + recipe * rng.normal()))
    return inside


def _holds(interval: tuple[float, float], truth: float) -> bool:
    return bool(interval[0] <= truth <= interval[1])


def of_noise(known: Design, share: float, missing: float, rng: np.random.Generator) -> Held:
    """Whether any task has a verdict, as in `kanana observe`: by the mixed model, or else by laws and pairs."""
    table = noise(known, share, missing, rng)
    by_joint = effects.every(joint.every(table, table.scores, "ja", "en"))
    apart = table.scores[[task for task in table.scores.columns if task not in by_joint]]
    found = laws.every(table, apart, known.by_language, OPTIONS)
    paired = pairs.summary(pairs.find(table, table.scores, "ja"), OPTIONS.draws, rng)
    evidence = laws.evidence(table, found, known.by_language, paired, OPTIONS, by_joint)
    judged = verdicts.judge_all(evidence, "ja")
    given = [v.verdict for v in judged.values() if v.verdict != verdicts.UNKNOWN]
    local = bool({verdicts.LOCAL, verdicts.MIXED} & {*given})
    return {"any verdict": [bool(given)], "'needs local data' or 'mixed'": [local]}


def of_components(known: Design, share: float, missing: float, rng: np.random.Generator) -> Held:
    """Whether a component is found in noise."""
    return {"a component": [bool(kept(noise(known, share, missing, rng), rng))]}


def noise(known: Design, share: float, missing: float, rng: np.random.Generator) -> tables.Tables:
    """Scores of noise, of which a share is common to a family."""
    family = rng.normal(size=(known.member.max() + 1, known.tasks))[known.member]
    y = 0.5 + 0.1 * (np.sqrt(share) * family + np.sqrt(1 - share) * rng.normal(size=family.shape))
    return known.table(holes(y, missing, rng))


def kept(table: tables.Tables, rng: np.random.Generator) -> int:
    """How many components are more than noise."""
    penalty = filling.hidden_cells(table.scores, 5, rng, ranks=()).penalty
    found, families = components.fit(table.scores, {}, penalty), table.models["family"].to_numpy(str)
    values = table.scores.to_numpy(float)
    noise = dimensions.noise_thresholds(values, penalty, families, NOISE_DRAWS, rng)[: len(found.eigenvalues)]
    above = found.eigenvalues > noise
    return len(above) if above.all() else int(np.argmin(above))


def of_power(pair_count: int, effect: float, rng: np.random.Generator, tasks: int = 19) -> Held:
    """Whether the interval of the one real gain is above zero, and whether it counts after the correction."""
    member = np.repeat(np.arange(4), SIZES[pair_count])
    family = rng.normal(size=(4, tasks))[member]
    gains = 0.35 * (np.sqrt(1 / 3) * family + np.sqrt(2 / 3) * rng.normal(size=family.shape))
    gains[:, 0] += effect
    names = tuple(map(str, range(pair_count)))
    frame = pd.DataFrame(gains, names, [f"t{j}" for j in range(tasks)])
    together = pairs.Pairs(names, names, member.astype(str), np.full(pair_count, 50.0), np.full(pair_count, 8e9),
                           frame, frame * 0)  # fmt: skip
    summary = pairs.summary(together, OPTIONS.draws, rng)
    judged = verdicts.judge_all({t: verdicts.Evidence({}, summary[t], 1.0) for t in frame.columns}, "ja")
    interval = summary["t0"]["ci95_family"]
    return {
        "interval above 0": [bool(interval and interval[0] > 0)],
        "counts after correction": [judged["t0"].verdict == verdicts.LOCAL],
    }


def of_verdicts(known: Design, pair_count: int, effect: float, rng: np.random.Generator) -> Held:
    """Whether the one task that rises with local compute is found by the mixed model, and what else is.

    All tasks follow English compute but the first; its slope on Japanese compute makes the gain `effect` of the 15
    pairs of the shipped table on average, in standard deviations of models of equal compute.
    """
    read, share, recipe = known.read, rng.uniform(0, 0.7), rng.uniform(0, 0.5)
    x, child = mixed.design(read, "ja", "en")[:, 1:], np.flatnonzero(known.base >= 0)
    more = (x[child, 1] - x[known.base[child], 1]).mean()
    y = scattered(known, share, rng) + (x[:, :1] - x[:, 0].mean())
    y[child] += (recipe * rng.normal(size=(known.member.max() + 1, known.tasks)))[known.member[child]]
    y[:, 0] += effect / more * (x[:, 1] - x[:, 1].mean()) - (x[:, 0] - x[:, 0].mean())
    chosen = np.sort(np.append(np.flatnonzero(known.base < 0), _pairs_of_four_families(known, pair_count, rng)))
    table = known.table(np.clip(0.5 + 0.1 * y, 0.01, 0.99))
    table = dataclasses.replace(table, scores=table.scores.iloc[chosen], models=table.models.iloc[chosen])
    paired = pairs.summary(pairs.find(table, table.scores, "ja"), OPTIONS.draws, rng)
    by_joint = effects.every(joint.every(table, table.scores, "ja", "en"))
    tasks = table.scores.columns
    sd = table.scores.std()
    evidence = {t: verdicts.Evidence({}, paired[t], float(sd[t]), effects=by_joint.get(t, {})) for t in tasks}
    local = [v.verdict in (verdicts.LOCAL, verdicts.MIXED) for v in verdicts.judge_all(evidence, "ja").values()]
    first = by_joint.get(tasks[0])
    return {
        "interval above 0": [bool(first and first["ja"]["ci95"][0] > 0)],
        "'needs local data' or 'mixed'": [local[0]],
        "the same of any of the 18 others": [any(local[1:])],
    }


def _pairs_of_four_families(known: Design, count: int, rng: np.random.Generator) -> np.ndarray:
    """Rows of `count` continual models, drawn from the four families, by size, as `SIZES` has them."""
    child = np.flatnonzero(known.base >= 0)
    families, many = np.unique(known.member[child], return_counts=True)
    ordered = families[np.argsort(-many, kind="stable")]
    parts = (rng.choice(child[known.member[child] == f], n, replace=False) for f, n in zip(ordered, SIZES[count]))
    return np.concatenate(list(parts))


def of_sizes(sizes: tuple[int, ...], rng: np.random.Generator, tasks: int = 19) -> Held:
    """Mean gains by the sizes of the families that the pairs are of, a third of the variance between families."""
    member = np.repeat(np.arange(4), sizes)
    groups = jackknife.rows_of(member)
    gains = np.sqrt(1 / 3) * rng.normal(size=(4, tasks))[member] + np.sqrt(2 / 3) * rng.normal(size=(15, tasks))
    every = (jackknife.estimate(np.ones((15, 1)), y, groups, 0) for y in gains.T)
    return {"gain": [_holds(one.ci95, 0.0) for one in every if one is not None]}


@dataclasses.dataclass(frozen=True)
class Part:
    """Tables of one kind.

    Attributes:
      stream: of its seeds, before the table's number.
      simulate: makes and judges one.
    """

    name: str
    stream: tuple[int, int]
    simulate: Callable[[np.random.Generator], Held]


def parts(known: Design) -> list[Part]:
    """All parts, coverage first."""
    found = []
    for missing in MISSING:
        holed, last = int(100 * missing), f", missing {missing:g}"
        for kind, name, simulate in ((0, "laws", of_laws), (1, "gains", of_gains), (6, "mixed", of_mixed)):
            found.append(Part(name + last, (kind, holed), functools.partial(simulate, known, missing)))
        for kind, name, share in ((2, "noise, independent", 0.0), (3, "noise, alike in families", 0.5)):
            found.append(Part(name + last, (kind, holed), functools.partial(of_noise, known, share, missing)))
            judge = functools.partial(of_components, known, share, missing)
            found.append(Part(f"components of {name}{last}", (kind, holed), judge))
    for kind, sizes in enumerate(((8, 3, 3, 1), (4, 4, 4, 3))):
        found.append(Part(f"sizes {'+'.join(map(str, sizes))}", (5, kind), functools.partial(of_sizes, sizes)))
    for count in SIZES:
        for effect in (0.2, 0.4, 0.75, 1.2):
            name = f"power, {count} pairs, gain {effect:g}"
            found.append(Part(name, (4, count), functools.partial(of_power, count, effect)))
            judge = functools.partial(of_verdicts, known, count, effect)
            found.append(Part(f"verdicts, {count} pairs, gain {effect:g}", (7, count), judge))
    return found


def summary(rows: list[dict]) -> list[dict]:
    """The share of each answer over all tables of a part.

    Args:
      rows: `part`, `table` and `held`: question → [answers, true ones].
    """
    sums: dict[tuple[str, str], np.ndarray] = {}
    for row in rows:
        for question, counts in row["held"].items():
            key = row["part"], question
            sums[key] = sums.get(key, np.zeros(3, int)) + [1, *counts]
    told = []
    for (part, question), (count, cases, true) in sums.items():
        share = round(float(true / cases), 4) if cases else None
        told.append({"part": part, "of": question, "tables": int(count), "cases": int(cases), "share": share})
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", type=int, default=200, metavar="N", help="tables of each part")
    parser.add_argument("--only", default="", metavar="NAME", help="parts whose name begins so")
    parser.add_argument("--output", type=pathlib.Path, metavar="FILE.jsonl", required=True)
    options = parser.parse_args()
    rows = read(options.output)
    done = {(row["part"], row["table"]) for row in rows}
    asked = [part for part in parts(design()) if part.name.startswith(options.only)]
    for i in range(options.tables):
        for part in asked:
            if (part.name, i) in done:
                continue
            held = part.simulate(np.random.default_rng([SEED, *part.stream, i]))
            counts = {question: [len(answers), sum(answers)] for question, answers in held.items()}
            rows.append({"part": part.name, "table": i, "held": counts})
            with options.output.open("a", encoding="utf-8") as lines:
                lines.write(json.dumps(rows[-1]) + "\n")
    for row in summary(rows):
        print(json.dumps(row))
    print(f"{time.process_time() / 60:.1f} minutes of CPU in this process")


if __name__ == "__main__":
    main()
