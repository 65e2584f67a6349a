"""The paired bootstrap against the normal interval of a mean, and its refusals."""

import json

import numpy as np
import pytest

from kanana_jax.errors import ConfigError, UserError
from kanana_jax.evaluation import compare


def _result(values, prompts="p"):
    return {"results": {"t": {"prompts": prompts, "n": len(values)}}, "documents": {"t": {"acc": list(values)}}}


def test_intervals_are_those_of_the_paired_difference():
    rng = np.random.default_rng(0)
    a = rng.random(400)
    b = a + 0.02 + 0.1 * rng.standard_normal(400)  # documents differ far more than the models do
    (row,) = compare.compare(_result(a), _result(b))
    half = 1.96 * np.std(b - a, ddof=1) / np.sqrt(400)
    assert row.difference == pytest.approx(np.mean(b - a))
    assert row.low == pytest.approx(row.difference - half, abs=0.1 * half)
    assert row.high == pytest.approx(row.difference + half, abs=0.1 * half)
    assert row.low > 0, "unpaired, it would be lost in the documents"


def test_what_cannot_be_compared_is_told(tmp_path):
    a = _result([0.0, 1.0])
    with pytest.raises(ConfigError, match="was not asked in the same way"):
        compare.compare(a, _result([0.0, 1.0], "q"))
    for key, value, told in (
        ("chat", True, r"\(chat None and True\)"),
        ("shots", 5, r"\(shots None and 5\)"),
        ("prompts", "q", "wording: the hashes of the prompts differ"),
    ):
        other = _result([0.0, 1.0], "q")
        other["results"]["t"][key] = value
        with pytest.raises(ConfigError, match=told):
            compare.compare(a, other)
    with pytest.raises(ConfigError, match=r"\(chat False and True, limit 3 and 4\)"):
        settings = [{"settings": {"chat": chat, "limit": limit, "seed": 0}} for chat, limit in ((False, 3), (True, 4))]
        compare.compare(a | settings[0], _result([0.0, 1.0], "q") | settings[1])
    with pytest.raises(ConfigError, match="no task in common"):
        compare.compare(a, {"results": {}, "documents": {}})
    chrf = {"results": {"ntrex": {"prompts": "p", "chrf": 1.0}}, "documents": {"ntrex": {}}}
    with pytest.raises(ConfigError, match="share ntrex, which have no score per document"):
        compare.compare(chrf, chrf)
    mixed = {key: a[key] | chrf[key] for key in a}
    rows = compare.compare(mixed, mixed)
    assert [row.task for row in rows] == ["t"] and compare.unscored(mixed, mixed, rows) == ["ntrex"]
    for text in ("{", "[]", json.dumps({"results": {}})):
        (tmp_path / "r.json").write_text(text)
        with pytest.raises(UserError, match="results"):
            compare.read(tmp_path / "r.json")
