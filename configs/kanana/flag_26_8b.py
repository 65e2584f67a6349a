"""Kanana (arXiv:2502.18934, §2): 26.8B from scratch, 3T tokens.

    kanana run --config configs/kanana/flag_26_8b.py:/data/documents --workdir /runs/flag_26_8b

Figure 2's mixtures, DeepSeek's schedule and law, independent weight decay 1e-4, z-loss 5e-6: see common.py.
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import common  # noqa: E402

from kanana_jax.models import presets  # noqa: E402


def get_config(arg: str = "documents"):
    return common.from_scratch("flag_26_8b", presets.flag_26_8b(), arg, dict(data=1, fsdp=-1, tensor=4))
