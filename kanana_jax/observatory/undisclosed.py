"""Assumed local budgets of models that do not disclose them: small, but not left out.

Models with unknown local tokens are mostly English or Chinese. Leaving them out keeps only models with much local text
and flattens the law. Web crawls contain some text in any language, so these models are assumed to have seen between
0.05% and 0.5% of their tokens in the local language (Llama 2 reports 0.1% Japanese, arXiv:2307.09288, table 10).
"""

import dataclasses

import numpy as np

from kanana_jax.observatory import budgets
from kanana_jax.observatory.budgets import Budget
from kanana_jax.observatory.tables import Tables

SHARE = (0.0005, 0.005)
SHARES = {"low": SHARE[0], "est": float(np.sqrt(SHARE[0] * SHARE[1])), "high": SHARE[1]}
TYPICAL_TOKENS_B = 2000.0  # assumed total (1e9) of a model that does not disclose its training tokens at all


def budget(tables: Tables, language: str) -> tuple[Budget, list[str], list[str]]:
    """The language's compute with assumed budgets filled in.

    Returns:
      The budget, the models whose local tokens were assumed, and those whose total tokens were assumed as well.
    """
    models = tables.models.copy()
    columns = {end: f"{language}_tokens_b_{end}" for end in SHARES}
    lacking = models.index[~(models[columns["est"]] > 0) & models["params"].notna()]
    total = models.loc[lacking, "tokens_b"].fillna(TYPICAL_TOKENS_B)
    for end, share in SHARES.items():
        models.loc[lacking, columns[end]] = total * share
    without_total = list(lacking[models.loc[lacking, "tokens_b"].isna()])
    return budgets.budget(dataclasses.replace(tables, models=models), language), list(lacking), without_total
