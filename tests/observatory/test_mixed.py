"""The mixed model against statsmodels, a dense Gaussian, and tables whose truth is known."""

import dataclasses
import warnings

import numpy as np
import pytest
from scipy import stats

from kanana_jax.observatory import gls, mixed

pytest_plugins = ["observatory_fixtures"]


def _kin(families, each, pairs):
    """`each` models from scratch a family, and a continual model of the first one in `pairs` of the families."""
    names = np.repeat([f"f{i}" for i in range(families)], each)
    roots = np.array([f"m{i}" for i in range(len(names))])
    first = np.arange(pairs) * each
    continual = np.r_[np.zeros(len(names), bool), np.ones(pairs, bool)]
    return mixed.Kin(np.r_[names, names[first]], np.r_[roots, roots[first]], continual)


@pytest.fixture
def drawn():
    """y = 1 + 2x with family 1.0 (half of the variance), lineage 0.5, own 0.5."""

    def make(seed, families=10, each=3, pairs=6):
        rng, kin = np.random.default_rng(seed), _kin(families, each, pairs)
        x = rng.normal(0, 1, len(kin.roots))
        effect = lambda names, sd: rng.normal(0, sd, len(set(names)))[np.unique(names, return_inverse=True)[1]]  # noqa: E731
        y = (
            1
            + 2 * x
            + effect(kin.families, 1.0)
            + effect(kin.roots, np.sqrt(0.5))
            + rng.normal(0, np.sqrt(0.5), len(x))
        )
        return np.column_stack([np.ones(len(x)), x]), y, kin

    return make


def test_restricted_likelihood_is_that_of_statsmodels(drawn):
    """At its optimum: the same line, the same two variances, and a slope of zero to either side."""
    formula = pytest.importorskip("statsmodels.regression.mixed_linear_model")
    x, y, kin = drawn(3, families=12, each=4, pairs=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = formula.MixedLM(y, x, kin.families).fit(reml=True, gtol=1e-10)
    family = (kin.families[:, None] == kin.families).astype(float)
    total = float(theirs.cov_re[0, 0]) + theirs.scale
    share = float(theirs.cov_re[0, 0]) / total
    among = np.array([s * family + (1 - s) * np.eye(len(y)) for s in (share - 1e-3, share, share + 1e-3)])
    of_all = gls.products(x, y[:, None], among)
    coefficients, variance, likelihood = (found[..., 0] for found in gls.restricted(of_all, len(y)))
    assert coefficients[1] == pytest.approx(theirs.fe_params, rel=1e-6)
    assert variance[1] == pytest.approx(total, rel=1e-3)
    assert np.sqrt(np.diag(np.linalg.inv(of_all.xx[1]) * variance[1])) == pytest.approx(theirs.bse_fe, rel=1e-3)
    assert likelihood[1] > max(likelihood[0], likelihood[2])
    bend = 2 * likelihood[1] - likelihood[0] - likelihood[2]
    assert abs(likelihood[2] - likelihood[0]) < 0.1 * bend  # the optimum is within a twentieth of the step


def test_covariance_by_hand():
    """A base, its two continual models, another model of the family, and a stranger."""
    kin = mixed.Kin(np.array(list("aaaab")), np.array(list("111xy")), np.array([False, True, True, False, False]))
    at = int(np.flatnonzero((mixed.SHARES == (0.3, 0.5, 0.7)).all(axis=1))[0])
    found = kin.covariance()[at]
    pair, siblings = 0.3 + 0.7 * 0.5, 0.3 + 0.7 * (0.5 + 0.5 * 0.7)
    assert found == pytest.approx(np.array([
        [1, pair, pair, 0.3, 0],
        [pair, 1, siblings, 0.3, 0],
        [pair, siblings, 1, 0.3, 0],
        [0.3, 0.3, 0.3, 1, 0],
        [0, 0, 0, 0, 1],
    ]))  # fmt: skip


def _across(kin):
    """The same models, but that one continual model is of another family than its base, which joins two families."""
    families = kin.families.copy()
    families[-1] = "f9"
    return dataclasses.replace(kin, families=families)


@pytest.mark.parametrize("across", [False, True])
def test_blocks_are_independent_and_whole(drawn, across):
    _, _, kin = drawn(4)
    kin = _across(kin) if across else kin
    blocks = kin.blocks()
    assert sorted(np.concatenate(blocks)) == list(range(len(kin.roots))) and len(blocks) == 10 - across
    inside = np.zeros((len(kin.roots),) * 2, bool)
    for rows in blocks:
        inside[np.ix_(rows, rows)] = True
    assert (kin.covariance()[:, ~inside] == 0).all()


@pytest.mark.parametrize("across", [False, True])
def test_leaving_a_family_out_is_a_fit_without_it(drawn, across):
    """Against generalised least squares of the remaining models with dense covariances, for two measures at once."""
    x, y, kin = drawn(7)
    kin, z = _across(kin) if across else kin, np.column_stack([y, np.cos(3 * y)])
    groups = [np.flatnonzero(kin.families == name) for name in dict.fromkeys(kin.families)]
    found = gls.left_out(x, z, kin.blocks(), kin.among, groups)
    for group, others in zip(groups, found):
        rest = np.delete(np.arange(len(y)), group)
        coefficients, variance, likelihood = gls.restricted(others, len(rest))
        among = kin.covariance()[:, rest][:, :, rest]
        for at in (0, 40, 124):
            pull = np.linalg.inv(among[at])
            line = np.linalg.inv(x[rest].T @ pull @ x[rest]) @ x[rest].T @ pull @ z[rest]
            left = z[rest] - x[rest] @ line
            assert coefficients[at] == pytest.approx(line, rel=1e-9)
            assert variance[at] == pytest.approx(np.diag(left.T @ pull @ left) / (len(rest) - 2), rel=1e-9)
        part = [mixed.fit(x[rest], values[rest], kin.take(rest)) for values in z.T]
        weights = gls.weights(likelihood).T
        assert weights == pytest.approx(np.array([p.weight for p in part]), rel=1e-8)
        assert coefficients == pytest.approx(np.stack([p.coefficients for p in part], -1), rel=1e-8)


def test_likelihood_weights_are_those_of_a_multivariate_normal(drawn):
    """With a line of huge prior variance, the density of y by SciPy at each point's own variance."""
    x, y, kin = drawn(8, families=6)
    of_all = gls.summed(x, y[:, None], kin.blocks(), kin.among)
    coefficients, variance, likelihood = (found[..., 0] for found in gls.restricted(of_all, len(y)))
    n, prior = len(y), 1e5
    dense = [
        stats.multivariate_normal(np.zeros(n), v * among + prior * x @ x.T).logpdf(y)
        for v, among in zip(variance, kin.covariance())
    ]
    assert likelihood - likelihood[0] == pytest.approx(np.array(dense) - dense[0], abs=2e-3)


@pytest.mark.parametrize("across", [False, True])
def test_predictions_are_those_of_a_dense_gaussian(drawn, across):
    """With a line whose prior variance is huge, prediction is conditioning of one multivariate normal law."""
    x, y, kin = drawn(1)
    kin = _across(kin) if across else kin
    model = mixed.fit(x, y, kin)
    new = mixed.Kin(np.array(["f0", "f9", "new"]), np.array(["m0", "m27", "new"]), np.array([True, True, False]))
    rows = np.array([[1, 0.3], [1, -2.0], [1, 4.0]])
    found = model.foretell(rows, new)
    for at in (0, 31, 62, 124):
        every = np.vstack([x, rows])
        joined = [np.concatenate([getattr(kin, key), getattr(new, key)]) for key in ("families", "roots", "continual")]
        law = mixed.Kin(*joined).covariance()[at] + 1e7 * every @ every.T
        n = len(y)
        pull = np.linalg.solve(law[:n, :n], law[:n, n:])
        assert found.middle[:, at] == pytest.approx(pull.T @ y, abs=1e-4)
        left = np.diag(law[n:, n:] - law[n:, :n] @ pull)
        assert found.scale[:, at] ** 2 / model.variance[at] == pytest.approx(left, abs=1e-3)


def test_a_mixture_of_students_t():
    one = mixed.Mixture(np.ones(1), np.array([[0.5], [2.0]]), np.array([[0.1], [3.0]]), 7)
    assert one.quantile(0.975) == pytest.approx(stats.t.ppf(0.975, 7, [0.5, 2.0], [0.1, 3.0]), rel=1e-9)
    two = mixed.Mixture(np.array([0.3, 0.7]), np.array([[0.0, 1.0]]), np.array([[1.0, 0.2]]), 5)
    at = two.quantile(0.9)
    direct = 0.3 * stats.t.cdf(at, 5) + 0.7 * stats.t.cdf(at, 5, 1.0, 0.2)
    assert direct == pytest.approx(0.9) and two.above(at) == pytest.approx(0.1)
    assert two.mean == pytest.approx(0.7)


def test_slopes_and_predictions_hold_the_truth(drawn):
    """95% intervals of 150 tables with known parameters, for a slope, a new family and a continual model."""
    held = {"slope": [], "new family": [], "continual": []}
    for seed in range(150):
        x, y, kin = drawn(seed)
        last = np.arange(len(y)) < len(y) - 1
        model = mixed.fit(x[last], y[last], kin.take(last))
        slope = model.effect(np.array([0.0, 1.0]))
        held["slope"].append(slope.quantile(0.025) <= 2 <= slope.quantile(0.975))
        _, low, high = model.interval(model.foretell(x[~last], kin.take(~last)))
        held["continual"].append(low <= y[~last] <= high)
        other = kin.families == "f0"
        apart = mixed.fit(x[~other], y[~other], kin.take(~other))
        _, low, high = apart.interval(apart.foretell(x[other][:1], kin.take(other).take(np.arange(1))))
        held["new family"].append(low <= y[other][:1] <= high)
    for name, inside in held.items():
        assert 0.91 <= np.mean(inside) <= 0.985, name  # ±2.2 standard errors of 150 about 95%


def test_a_continual_model_inherits_a_part_of_its_base(drawn):
    """Where bases lie far from the line it starts from its base; the better the base, the smaller the gain."""
    x, y, kin = drawn(5)
    gains = []
    for level in (0.0, 2.0):
        moved = y.copy()
        moved[0] = 1 + 2 * x[0, 1] + level
        model = mixed.fit(x, moved, kin)
        child = mixed.Kin(np.array(["f0"]), np.array(["m0"]), np.array([True]))
        gains.append(model.foretell(x[:1], child).mean[0] - moved[0])
    assert -2.0 < gains[1] - gains[0] < 0


def test_items_bound_the_own_part_from_below():
    """Scores of 1000 items err by at least √(1/4000) on the arcsine's scale, however well they seem to fit."""
    kin = _kin(8, 2, 0)
    x = np.column_stack([np.ones(16), np.linspace(-1, 1, 16)])
    share = np.sin(0.8 + 0.3 * x[:, 1] + 0.1 * np.repeat([1, -1], 8)) ** 2
    free, bound = (mixed.fit(x, share, kin, (0, 1), items) for items in (np.nan, 1000))
    own = (1 - mixed.SHARES[:, 0]) * (1 - mixed.SHARES[:, 1])
    assert (own * free.variance)[free.weight > 1e-9].min() < 1 / 4000
    assert (own * bound.variance)[bound.weight > 0].min() >= 1 / 4000


def test_scores_stay_within_their_range(drawn):
    x, y, kin = drawn(2)
    percent = 100 / (1 + np.exp(-y))
    model = mixed.fit(x, percent, kin, (0, 100))
    middle, low, high = model.interval(model.foretell(np.array([[1, -40.0], [1, 40.0]]), _kin(2, 1, 0)))
    assert (low >= 0).all() and (high <= 100).all() and (low <= middle).all() and (middle <= high).all()
    assert mixed.back(mixed.stabilised(np.array([37.0]), (0, 100)), (0, 100)) == pytest.approx(37)


def test_too_few_models_or_one_budget_have_no_model(drawn):
    x, y, kin = drawn(2)
    few = np.arange(5)
    assert mixed.fit(x[few], y[few], kin.take(few)) is None
    assert mixed.fit(np.ones((len(y), 2)), y, kin) is None


def test_budgets_of_the_shipped_table(shipped):
    """Zero and undisclosed tokens stay in; a continual model has its base's assumed text and what was added."""
    found = dict(zip(shipped.models.index, mixed.design(shipped, "ja", "en")))
    assert np.isfinite(list(found.values())).all()
    ja = lambda name: 10 ** found[name][2] / (6 * shipped.models.loc[name, "params"] * 1e9)  # noqa: E731
    assumed = 15000 * np.sqrt(0.0005 * 0.005)
    assert ja("meta-llama/Meta-Llama-3-8B") == pytest.approx(assumed)
    assert ja("rinna/llama-3-youko-8b") == pytest.approx(assumed + 16)
    assert ja("tokyotech-llm/Swallow-7b-hf") == pytest.approx(92)
    en = lambda name: 10 ** found[name][1] / (6 * shipped.models.loc[name, "params"] * 1e9)  # noqa: E731
    assert en("Rakuten/RakutenAI-7B") == pytest.approx(0.7 * 2000) == pytest.approx(en("mistralai/Mistral-7B-v0.1"))
    zero = shipped.models.copy()
    zero.loc["meta-llama/Llama-2-7b-hf", ["ja_tokens_b_low", "ja_tokens_b_est"]] = 0.0
    again = dict(zip(zero.index, mixed.design(dataclasses.replace(shipped, models=zero), "ja", "en")))
    assert np.isfinite(again["meta-llama/Llama-2-7b-hf"]).all()


def test_a_chain_of_continual_models_keeps_what_its_first_base_has_seen(shipped):
    """English of Mistral is assumed (0.7 · 2000e9) and that of Llama 2 told; models that continue them add to it."""
    swallow, further = "tokyotech-llm/Swallow-MS-7b-v0.1", "Rakuten/RakutenAI-7B"
    models = shipped.models.copy()
    models.loc[further, "base"] = swallow
    column = "en_tokens_b_est"
    english = lambda: dict(zip(models.index, mixed.tokens_b(dataclasses.replace(shipped, models=models), "en", True)))  # noqa: E731
    models.loc[[swallow, further], column] = [50.0, 80.0]
    assert np.isnan(models.loc["mistralai/Mistral-7B-v0.1", column])
    assert (english()[swallow], english()[further]) == (1450.0, 1480.0)
    models.loc[further, column] = np.nan
    assert english()[further] == 1450.0
    told, child = "meta-llama/Llama-2-7b-hf", "tokyotech-llm/Swallow-7b-hf"
    models.loc[child, column] = np.nan
    assert english()[child] == models.loc[told, column] > 1500


def test_kin_of_the_shipped_table(shipped):
    kin = mixed.kin(shipped)
    roots = dict(zip(shipped.models.index, kin.roots))
    assert roots["tokyotech-llm/Swallow-7b-hf"] == roots["rinna/youri-7b"] == "meta-llama/Llama-2-7b-hf"
    assert roots["Qwen/Qwen2-7B"] == "Qwen/Qwen2-7B" and kin.continual.sum() == 15
