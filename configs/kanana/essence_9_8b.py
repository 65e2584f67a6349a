"""Kanana (arXiv:2502.18934, §2): 9.8B, up-scaled from the 8B, then trained on 100B + 100B tokens.

    kanana run --config configs/kanana/essence_9_8b.py:/data/documents,/models/essence_start --workdir /runs/essence

Figure 2's mixtures, DeepSeek's schedule and law, independent weight decay 1e-4, z-loss 5e-6: see common.py.
"""

from kanana_jax.configs.kanana import common

from kanana_jax.models import presets


def get_config(arg: str = "documents"):
    documents, _, start = arg.partition(",")
    start = start or "models/essence_9_8b_start"
    return common.upscaled("essence_9_8b", presets.essence_9_8b(), start, documents, dict(data=1, fsdp=-1, tensor=1))
