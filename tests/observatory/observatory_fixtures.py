"""The shipped study, run once; tables of synthetic models with known truth."""

import json

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("statsmodels")
pytest.importorskip("sklearn")


@pytest.fixture(scope="session")
def shipped():
    from kanana_jax.observatory import tables

    return tables.read(tables.shipped() / "scores.csv")


@pytest.fixture(scope="session")
def study(shipped):
    from kanana_jax.observatory.study import Options, run

    result = run(shipped, Options(plan="base=Llama-3-8B,params=8e9,ja_tokens=100e9", target="NIILC=0.55"))
    return json.loads(json.dumps(result))


@pytest.fixture
def write(tmp_path):
    """Writes scores, models and tasks; returns the path of the scores."""

    def make(scores: str, models: str | None = None, tasks: str | None = None):
        (tmp_path / "scores.csv").write_text(scores)
        if models is not None:
            (tmp_path / "models.csv").write_text(models)
        names = scores.splitlines()[0].split(",")[1:]
        default = "task,language\n" + "".join(f"{n},{'ko' if i % 2 else 'en'}\n" for i, n in enumerate(names))
        (tmp_path / "tasks.csv").write_text(tasks or default)
        return tmp_path / "scores.csv"

    return make


@pytest.fixture
def world(tmp_path):
    """A table of models in families whose scores follow two budgets: en tasks English compute, ko tasks Korean compute."""

    def make(families=6, each=4, seed=0, noise=0.02, one_family=False):
        rng = np.random.default_rng(seed)
        rows, scores = [], []
        for f in range(families):
            for i in range(each):
                n, en, ko = 10 ** rng.uniform(9, 11), 10 ** rng.uniform(2, 4), 10 ** rng.uniform(0, 3)
                general, local = np.log10(6 * n * en * 1e9) - 22.5, np.log10(6 * n * ko * 1e9) - 21
                rows.append(dict(model=f"m{f}-{i}", family="F" if one_family else f"F{f}", params=n,
                                 en_tokens_b_est=en, ko_tokens_b_est=ko))  # fmt: skip
                value = lambda z: 1 / (1 + np.exp(-z)) + rng.normal(0, noise)  # noqa: E731
                scores.append(dict(model=f"m{f}-{i}", **{f"en{k}": value(general) for k in range(4)},
                                   **{f"ko{k}": value(local) for k in range(2)}))  # fmt: skip
        table = pd.DataFrame(scores)
        table.iloc[:, 1:] = table.iloc[:, 1:].clip(0, 1)
        table.to_csv(tmp_path / "scores.csv", index=False)
        pd.DataFrame(rows).to_csv(tmp_path / "models.csv", index=False)
        tasks = [dict(task=c, language=c[:2], anchor="PC2" if c == "ko0" else "") for c in table.columns[1:]]
        pd.DataFrame(tasks).to_csv(tmp_path / "tasks.csv", index=False)
        return tmp_path / "scores.csv"

    return make
