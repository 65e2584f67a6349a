"""Kanana (arXiv:2502.18934, §2): 32.5B, up-scaled from the 26.8B, then trained on 100B + 100B tokens.

    kanana run --config configs/kanana/flag_32_5b.py:/data/documents,/models/flag_32_5b_start --workdir /runs/flag_32_5b

Figure 2's mixtures, DeepSeek's schedule and law, independent weight decay 1e-4, z-loss 5e-6: see common.py.
"""

from kanana_jax.configs.kanana import common

from kanana_jax.models import presets


def get_config(arg: str = "documents"):
    documents, _, start = arg.partition(",")
    start = start or "models/flag_32_5b_start"
    return common.upscaled("flag_32_5b", presets.flag_32_5b(), start, documents, dict(data=1, fsdp=-1, tensor=4))
