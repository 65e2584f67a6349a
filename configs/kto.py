"""KTO of a chat model on answers labelled desirable or undesirable (arXiv:2402.01306).

    kanana run --config configs/kto.py:MODEL,ANSWERS --workdir runs/kto

ANSWERS is a file or folder of lines `{"prompt", "completion", "label"}` (or `{"messages", "label"}`), or of pairs as
for `configs/dpo.py`: their chosen answers count as desirable and their rejected answers as undesirable.
"""

from kanana_jax.configs import dpo


def get_config(arg: str = ""):
    return dpo.on_pairs(arg, "kto", 5e-7, kto=dict(beta=0.1))
