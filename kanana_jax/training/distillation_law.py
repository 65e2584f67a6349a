"""Apple's distillation scaling law (arXiv:2502.08606): what a student loses, given its size, tokens and teacher.

Losses are nats a token on web text; sizes are non-embedding parameters. Fitted for students of 143M to 12.6B: far
below that it says which way things go, no more.
"""


def supervised_loss(parameters: float, tokens: float) -> float:
    """L̃(N, D) of a model that is trained on text (the supervised law, with the constants fitted there)."""
    return 1.220 + (3355 / parameters**0.408 + 18186 / tokens**0.431) ** 0.452


def distilled_loss(parameters: float, tokens: float, teacher_loss: float) -> float:
    """L_S(N, D, L_T) of a student that is distilled on as many tokens (the distillation law)."""
    alone = supervised_loss(parameters, tokens)
    gap = (1 + (teacher_loss / (1.315 * alone)) ** 11.1) ** -47.0
    reach = (2243 / parameters**0.321 + 24181 / tokens**0.637) ** 0.764
    return teacher_loss + teacher_loss**-2.549 * gap * reach
