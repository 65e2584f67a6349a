"""KTO of a chat model on answers that are desirable or not (arXiv:2402.01306).

    kanana run --config configs/kto.py:MODEL,ANSWERS --workdir runs/kto

ANSWERS is a file or folder of `{"prompt", "completion", "label"}` lines (or `messages` in place of the first two), or
of pairs as for `configs/dpo.py`, whose chosen answers are desirable and whose rejected ones are not.
"""

from kanana_jax.configs import dpo


def get_config(arg: str = ""):
    return dpo.on_pairs(arg, "kto", 5e-7, kto=dict(beta=0.1))
