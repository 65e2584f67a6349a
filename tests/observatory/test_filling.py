"""Components of noise, holes, and families: none is found where none is, and a planted one is."""

import numpy as np
import pandas as pd
import pytest

from kanana_jax.observatory import components, dimensions, filling

FAMILIES = np.repeat(np.arange(9), [11, 5, 5, 4, 3, 3, 2, 1, 1]).astype(str)


def _holes(table, share, rng):
    return np.where(rng.random(table.shape) < share, np.nan, table)


def _found(table, seed=0):
    """How many components stand out, with the filling that hidden cells choose."""
    penalty = filling.hidden_cells(pd.DataFrame(table), 5, np.random.default_rng(seed), ranks=()).penalty
    fit = components.fit(pd.DataFrame(table), {}, penalty)
    noise = dimensions.noise_thresholds(table, penalty, FAMILIES, 100, np.random.default_rng(seed))
    above = fit.eigenvalues > noise[: len(fit.eigenvalues)]
    return int(np.argmin(above)) if not above.all() else len(above)


def test_soft_impute_solves_its_problem():
    """At the solution, the reconstruction of the filled table with shrunk singular values is what stands in the holes."""
    rng = np.random.default_rng(0)
    z = _holes(rng.normal(size=(20, 2)) @ rng.normal(size=(2, 7)) + rng.normal(0, 0.2, (20, 7)), 0.2, rng)
    found = filling.shrunk(z, 1.5, tolerance=1e-10, steps=5000)
    u, s, vt = np.linalg.svd(found, full_matrices=False)
    reconstruction = (u * np.maximum(s - 1.5, 0)) @ vt
    np.testing.assert_allclose(found[np.isnan(z)], reconstruction[np.isnan(z)], atol=1e-7)
    np.testing.assert_array_equal(found[~np.isnan(z)], z[~np.isnan(z)])
    both = filling.shrunk(np.stack([z, z]), 1.5, tolerance=1e-10, steps=5000)
    np.testing.assert_allclose(both[1], found, atol=1e-7)
    largest = np.linalg.norm(np.nan_to_num(z), 2)
    assert not filling.shrunk(z, largest)[np.isnan(z)].any()  # the column means


def test_holes_in_noise_are_filled_with_means_and_holes_in_a_plane_are_not():
    rng = np.random.default_rng(1)
    noise = filling.hidden_cells(pd.DataFrame(rng.normal(size=(35, 19))), 10, rng)
    assert noise.rmse["shrunk"] < 1.03 * noise.rmse["column_means"] < 0.95 * noise.rmse["2"]
    plane = rng.normal(size=(35, 2)) @ rng.normal(size=(2, 19)) + rng.normal(0, 0.3, (35, 19))
    found = filling.hidden_cells(pd.DataFrame(_holes(plane, 0.2, rng)), 10, rng)
    assert found.rmse["shrunk"] < 0.5 * found.rmse["column_means"]


@pytest.mark.parametrize("missing", [0.0, 0.2])
def test_noise_has_no_component(missing):
    rng = np.random.default_rng(2)
    tables = [_holes(rng.normal(0.5, 0.1, (35, 19)), missing, rng) for _ in range(6)]
    assert [_found(t) for t in tables] == [0] * 6


def test_families_alone_are_no_component():
    """Every task has family effects of its own: Horn's threshold for independent models is passed, ours is not."""
    rng, plain, ours = np.random.default_rng(3), [], []
    horn = dimensions.parallel_analysis(35, 19, 200, rng)
    for _ in range(6):
        effect = rng.normal(size=(9, 19))[FAMILIES.astype(int)]
        table = 0.8 * effect + 0.6 * rng.normal(size=(35, 19))
        plain.append(components.fit(pd.DataFrame(table), {}).eigenvalues[0] > horn[0])
        ours.append(_found(table))
    assert np.mean(plain) > 0.5 and ours == [0] * 6


def test_a_second_component_is_seen_beside_a_strong_first():
    """Horn's threshold for the second eigenvalue asks too much once the first has most of the variance."""
    rng = np.random.default_rng(4)
    first, second = rng.normal(size=(35, 1)), rng.normal(size=(35, 1))
    load = np.zeros((1, 19))
    load[0, :5] = 1.0
    table = 1.5 * first + 0.8 * second * load + 0.5 * rng.normal(size=(35, 19))
    fit = components.fit(pd.DataFrame(table), {})
    assert fit.eigenvalues[1] < dimensions.parallel_analysis(35, 19, 200, rng)[1]
    assert _found(table) == 2


def test_holes_need_a_penalty():
    with pytest.raises(ValueError, match="give the penalty"):
        components.fit(pd.DataFrame([[0.1, 0.2, np.nan], [0.3, 0.1, 0.2], [0.2, 0.3, 0.1]]), {})
