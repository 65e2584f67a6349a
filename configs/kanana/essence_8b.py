"""Kanana (arXiv:2502.18934, §2): 8.03B from scratch, 3T tokens.

    kanana run --config configs/kanana/essence_8b.py:/data/documents --workdir /runs/essence_8b

Figure 2's mixtures, DeepSeek's schedule and law, independent weight decay 1e-4, z-loss 5e-6: see common.py.
"""

from kanana_jax.configs.kanana import common

from kanana_jax.models import presets


def get_config(arg: str = "documents"):
    return common.from_scratch("essence_8b", presets.essence_8b(), arg, dict(data=1, fsdp=-1, tensor=1))
