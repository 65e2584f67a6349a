"""The law's own examples (arXiv:2502.08606): a student of 150M, 20 tokens a parameter, teachers trained alike."""

import pytest

from kanana_jax.models.laws import distilled_loss, supervised_loss

N = 150e6


@pytest.mark.parametrize(
    "ratio, at_equal_tokens, at_equal_flops", [(2, -0.09, -0.02), (4, -0.16, -0.04), (8, -0.21, -0.04)]
)
def test_what_distillation_buys(ratio, at_equal_tokens, at_equal_flops):
    tokens, teacher = 20 * N, supervised_loss(ratio * N, 20 * ratio * N)
    student = distilled_loss(N, tokens, teacher)
    assert student - supervised_loss(N, tokens) == pytest.approx(at_equal_tokens, abs=0.005)
    with_forward = tokens * (6 + 2 * ratio) / 6
    assert student - supervised_loss(N, with_forward) == pytest.approx(at_equal_flops, abs=0.005)


def test_long_training_makes_up_for_a_teacher():
    """Beyond about 66 tokens a parameter, text alone teaches more than a fixed teacher of twice the size."""
    teacher = supervised_loss(2 * N, 40 * N)
    gain = {per: distilled_loss(N, per * N, teacher) - supervised_loss(N, per * N) for per in (62, 70)}
    assert gain[62] < 0 < gain[70]
