"""Depth up-scaling (arXiv:2502.18934, §2.2) at small scale, against its base and the deeper model from scratch.

    kanana run --config configs/ablations/small.py --workdir runs/small/teacher        (its vocabulary is shared)
    for seed in 0 1 2; do
      kanana run --config configs/ablations/growth.py:$seed --workdir runs/small/growth/$seed
    done
    python benchmarks/arms.py runs/small/growth --against none --stages none overlap identity neighbour stack fresh

A model of eight layers sees 3M tokens at a constant learning rate. Up-scaled to ten layers (as Kanana's 32 → 40), it
trains on 1M more tokens while the learning rate anneals. `none` continues with eight layers, since the paper compares
with the base. `fresh` trains ten layers from scratch, which the paper never did. These two arms have the FLOPs of the
others, and as many tokens as those FLOPs allow.
"""

import dataclasses
from typing import Any

from kanana_jax.configs.ablations import small

from kanana_jax.models import counts, presets

BASE, MORE = 3_000_000, 1_000_000
RATE = 4e-3
METHODS = ("overlap", "identity", "neighbour", "stack")


def get_config(arg: str = "0"):
    c = small.base(f"growth {arg}", int(arg))
    mixture = small.mixture(c)
    shallow = presets.tiny(1024, embed_dim=64, mlp_dim=176, num_layers=8, num_heads=4, num_kv_heads=2, head_dim=16)
    deep = dataclasses.replace(shallow, num_layers=10)
    cost = counts.train_flops_per_token(shallow, 256) / counts.train_flops_per_token(deep, 256)

    def stage(tokens: float, kind: str = "cosine", **start: Any) -> dict[str, Any]:
        return dict(kind="pretrain", mixture=mixture, train=small.train(int(tokens), RATE, kind), **start)

    c.base = stage(BASE, "constant", model=shallow.to_dict())
    c.none = stage(MORE / cost, start="base")
    c.stages = ("base", "none")
    for method in METHODS:
        c[f"{method}_grown"] = dict(kind="upscale", start="base", upscale=dict(num_layers=10, method=method))
        c[method] = stage(MORE, start=f"{method}_grown")
        c.stages = (*c.stages, f"{method}_grown", method)
    c.fresh_begun = stage(BASE * cost, "constant", model=deep.to_dict())
    c.fresh = stage(MORE, start="fresh_begun")
    c.stages = (*c.stages, "fresh_begun", "fresh")
    return c
