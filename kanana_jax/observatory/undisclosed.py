"""Local budgets of models that do not disclose them: nearly none, but not left out.

Models of which no local tokens are known are mostly English or Chinese ones. To leave them out of the law keeps those
with much local text only, and makes it too flat. A crawl of the web holds some text of any language: they are given
between 0.05% and 0.5% of their tokens, an assumption (Llama 2 reports 0.1% Japanese, arXiv:2307.09288, table 10).
"""

import dataclasses

import numpy as np

from kanana_jax.observatory import budgets
from kanana_jax.observatory.budgets import Budget
from kanana_jax.observatory.tables import Tables

SHARE = (0.0005, 0.005)
SHARES = {"low": SHARE[0], "est": float(np.sqrt(SHARE[0] * SHARE[1])), "high": SHARE[1]}
TYPICAL_TOKENS_B = 2000.0  # of a model that does not say how much text it was trained on at all


def budget(tables: Tables, language: str) -> tuple[Budget, list[str], list[str]]:
    """The language's compute with those budgets filled in, the models that got one, and those whose total got one."""
    models = tables.models.copy()
    columns = {end: f"{language}_tokens_b_{end}" for end in SHARES}
    lacking = models.index[~(models[columns["est"]] > 0) & models["params"].notna()]
    total = models.loc[lacking, "tokens_b"].fillna(TYPICAL_TOKENS_B)
    for end, share in SHARES.items():
        models.loc[lacking, columns[end]] = total * share
    without_total = list(lacking[models.loc[lacking, "tokens_b"].isna()])
    return budgets.budget(dataclasses.replace(tables, models=models), language), list(lacking), without_total
