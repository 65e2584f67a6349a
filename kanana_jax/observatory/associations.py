"""Correlations between benchmarks, their clusters, and pairs that measure one ability in two languages."""

from typing import TypedDict

import numpy as np
import pandas as pd
from scipy.cluster import hierarchy
from scipy.spatial.distance import squareform

CLUSTERS = 3


class Clusters(TypedDict):
    """A hierarchical clustering of tasks.

    Attributes:
      groups: clusters of tasks, the smallest first.
      order: the tasks in the order of the dendrogram's leaves.
      linkage: SciPy's linkage matrix, [tasks − 1, 4].
    """

    groups: list[list[str]]
    order: list[str]
    linkage: list[list[float]]


class CrossLingual(TypedDict):
    """A task, the task of the same ability in another language, and their correlation."""

    task: str
    pair: str
    r: float


def correlations(scores: pd.DataFrame) -> pd.DataFrame:
    """Pearson's r between tasks, over the models with scores of both; NaN for fewer than three such models."""
    return scores.corr(min_periods=3)


def clusters(correlation: pd.DataFrame, count: int = CLUSTERS) -> Clusters:
    """Clusters tasks by average linkage on the distance 1 − r (an unknown r counts as 0)."""
    distance = 1 - correlation.fillna(0).to_numpy()
    np.fill_diagonal(distance, 0)
    linkage = hierarchy.linkage(squareform((distance + distance.T) / 2, checks=False), "average")
    labels = hierarchy.fcluster(linkage, count, "maxclust")
    tasks = list(correlation.columns)
    groups = [[t for t, mine in zip(tasks, labels) if mine == label] for label in sorted(set(labels))]
    order = [tasks[i] for i in hierarchy.leaves_list(linkage)]
    return {"groups": sorted(groups, key=len), "order": order, "linkage": linkage.tolist()}


def cross_lingual(correlation: pd.DataFrame, tasks: pd.DataFrame) -> list[CrossLingual]:
    """The declared cross-lingual pairs with their correlation, each pair once."""
    rows: list[CrossLingual] = []
    for task, pair in zip(tasks.index, tasks["pair"]):
        if pair in correlation.columns and not any(row["pair"] == task for row in rows):
            rows.append({"task": task, "pair": pair, "r": correlation.loc[task, pair]})
    return rows
