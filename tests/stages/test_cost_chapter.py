"""The family's cost is the paper's figure, recomputed from cards."""

import pytest

from kanana_jax.stages.cost_chapter import cost_blocks, family_cost


def _card(size, tokens, parent=None, teacher=0.0, calibration=0.0):
    flops = {"train": 6.0 * size * tokens, "teacher": teacher, "calibration": calibration}
    return {"tokens": tokens, "parent": parent, "flops": flops}


def test_up_scaling_saves_what_the_paper_says():
    """1 − [3T · (8 + 26.8) + 0.2T · (9.8 + 32.5)] / [3T · (9.8 + 32.5)] = 11.06%."""
    cards = {}
    for small, big in (("8b", "9.8b"), ("26.8b", "32.5b")):
        a, b = float(small[:-1]) * 1e9, float(big[:-1]) * 1e9
        cards[small] = _card(a, 3e12)
        cards[f"{small}_up"] = _card(b, 0, f"/x/{small}/model")
        cards[big] = _card(b, 0.2e12, f"/x/{small}_up/model")
    found = family_cost({k: v for k, v in cards.items() if k in ("8b", "8b_up", "9.8b")})
    spent = 3e12 * 8e9 + 0.2e12 * 9.8e9
    assert found["models"] == ["9.8b"] and found["tokens"] == 3e12
    assert found["saved"] == pytest.approx(1 - spent / (3e12 * 9.8e9))
    both = [family_cost({k: v for k, v in cards.items() if k in group})
            for group in (("8b", "8b_up", "9.8b"), ("26.8b", "26.8b_up", "32.5b"))]  # fmt: skip
    saved = 1 - sum(f["total"] for f in both) / sum(f["scratch"] for f in both)
    assert saved == pytest.approx(0.1106, abs=5e-5)


def test_teachers_and_calibration_count():
    cards = {
        "base": _card(100, 1000),
        "pruned": _card(50, 0, "/x/base/model", calibration=77.0),
        "student": _card(50, 200, "/x/pruned/model", teacher=1000.0),
    }
    found = family_cost(cards)
    assert found["spent"] == {"train": 6 * (100 * 1000 + 50 * 200), "teacher": 1000.0, "calibration": 77.0}
    assert found["models"] == ["student"] and found["scratch"] == 6 * 50 * 1000
    assert len(cost_blocks(cards)) == 2
    assert family_cost({"base": _card(100, 1000)}) is None and cost_blocks({"base": _card(100, 1000)}) == []
