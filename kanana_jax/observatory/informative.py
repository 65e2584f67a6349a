"""Selection of informative tasks: finds constants, copies, means of other tasks, and zeros that look like faults."""

import pathlib

import numpy as np
import pandas as pd

from kanana_jax.errors import ConfigError

COPY = 0.999  # a column correlated this much with another counts as a copy of it
NEIGHBOURS = 5


def useful(path: pathlib.Path, scores: pd.DataFrame, tasks: pd.DataFrame, warnings: list[str]) -> pd.DataFrame:
    """Removes models without scores, and tasks that are constant or redundant.

    Args:
      path: the score table's file, for messages.
      scores: models × tasks, NaN where not measured.
      warnings: receives a sentence about everything that is left out and about suspected faults.

    Raises:
      ConfigError: fewer than three tasks are left.
    """
    empty = scores.index[scores.isna().all(axis=1)]
    for model in empty:
        warnings.append(f"'{model}' has no score at all and is left out.")
    scores = scores.drop(index=empty)
    asked = list(scores.columns)
    for task in list(scores.columns):
        seen = scores[task].dropna()
        if len(seen) < 2 or seen.nunique() < 2:
            words = f"the same score ({seen.iloc[0]:g}) for every model" if len(seen) > 1 else "fewer than two scores"
            warnings.append(f"'{task}' has {words}: it carries no information and is left out.")
            scores = scores.drop(columns=task)
    scores = _once(scores, tasks, warnings)
    if len(scores.columns) < 3:
        useless = [task for task in asked if task not in scores.columns]
        why = "do not distinguish models (the same score for every model, or a copy)"
        alike = f", and {cut(useless)} {why}" if useless else ""
        raise ConfigError(
            f"{path} has {len(scores.columns)} usable tasks of {len(asked)}: components need 3 or more on which models "
            f"differ{alike}; add tasks, or ask more questions of each"
        )
    for task in scores.columns:
        zeros = list(suspicious_zeros(scores, task))
        if zeros:
            warnings.append(
                f"'{task}' is exactly 0 for {cut(zeros)}, although models that are close on the other tasks score "
                "more: more likely a fault of the scoring than a lack of ability; these zeros count in components only."
            )
    return scores


def cut(names: list[str], most: int = 3) -> str:
    """Lists the first names and the number of further ones."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def suspicious_zeros(scores: pd.DataFrame, task: str) -> pd.Index:
    """Models that score exactly 0 although most models with a similar mean on the other tasks score more."""
    zeros = scores.index[scores[task] == 0]
    if not len(zeros):
        return zeros
    others = scores.drop(columns=task)
    level = ((others - others.mean()) / others.std()).mean(axis=1)
    found = []
    for model in zeros:
        distance = (level - level[model]).abs().drop(model)[scores[task].drop(model).notna()]
        nearest = distance.sort_values(kind="stable").index[:NEIGHBOURS]
        if (scores.loc[nearest, task] > 0).mean() > 0.5:
            found.append(model)
    return pd.Index(found)


def trusted(measures: pd.DataFrame, scores: pd.DataFrame) -> pd.DataFrame:
    """The measures (tasks and components) with suspicious zeros replaced by NaN."""
    found = measures.copy()
    for task in scores.columns:
        found.loc[suspicious_zeros(scores, task), task] = np.nan
    return found


def _once(scores: pd.DataFrame, tasks: pd.DataFrame, warnings: list[str]) -> pd.DataFrame:
    """Removes copies of other columns, and means of all other columns or of all others in one language.

    If fewer than three tasks would remain, nothing is removed; a warning names the redundant tasks.
    """
    found: dict[str, str] = {}
    for task in scores.columns:
        others = scores.drop(columns=[task, *found])
        candidates = {"the mean of the other tasks": others}
        for language in sorted(set(tasks.loc[others.columns, "language"])):
            own = (tasks.loc[others.columns, "language"] == language).to_numpy()
            candidates[f"the mean of the other tasks in '{language}'"] = others.loc[:, own]
        for words, table in candidates.items():
            # The mean of tasks of one ability correlates with each of them, as a good test does: only exact arithmetic
            # shows that a column is a mean.
            if table.shape[1] >= 2 and np.allclose(table.mean(axis=1, skipna=False), scores[task], atol=2e-3):
                found.setdefault(task, f"'{task}' is {words}: it counts them twice")
    r = scores.corr(min_periods=4)
    for i, task in enumerate(r.columns):
        twins = [other for other in r.columns[:i] if other not in found and r.loc[task, other] >= COPY]
        if twins and task not in found:
            found[task] = f"'{task}' is a copy of '{twins[0]}' (r = {r.loc[task, twins[0]]:.4f}): it counts twice"
    enough = scores.shape[1] - len(found) >= 3
    end = " and is left out." if enough else "; leave it out with --ignore."
    warnings += [words + end for words in found.values()]
    return scores.drop(columns=list(found)) if enough else scores
