"""Importance scores for pruning (arXiv:2502.18934, Table 15) at small scale: loss after pruning and after distillation.

    kanana run --config configs/ablations/small.py --workdir runs/small/teacher
    for seed in 0 1 2; do
      kanana run --config configs/ablations/importance.py:$seed --workdir runs/small/importance/$seed
    done
    arms="kanana no_alignment no_layer_sum gate_up batch_mean sequence_l2 swapped rescaled wanda magnitude random"
    python benchmarks/arms.py runs/small/importance --against kanana --stages $arms
    python benchmarks/arms.py runs/small/importance --against kanana --stages $arms --first

The seed determines the calibration text, the order of the data and the ranks of `random`. The student sees 200k tokens,
2% of the teacher's. `--first` compares the losses right after pruning.
"""

from kanana_jax.configs.ablations import small

ARMS = {  # arm: (importance settings, pruning settings)
    "kanana": ({}, {}),
    "no_alignment": ({}, dict(align_groups=False)),
    # Scores by the last norm alone; the paper does not say what its row without the sum uses.
    "no_layer_sum": (dict(layer_sum=False), {}),
    "gate_up": (dict(neurons="gate_up"), {}),
    "batch_mean": (dict(batch="mean"), {}),
    "sequence_l2": (dict(sequence="l2"), {}),
    # A known mistake, the two axes swapped: (L2, mean) becomes (mean, L2).
    "swapped": (dict(sequence="l2", batch="mean"), {}),
    "rescaled": ({}, dict(rescale_norms=True)),
    "wanda": (dict(method="wanda"), {}),
    "magnitude": (dict(method="magnitude"), {}),
    "random": (dict(method="random"), {}),
}


def get_config(arg: str = "0"):
    seed = int(arg)
    c = small.base(f"importance {seed}", seed)
    mixture = small.mixture(c)
    c.stages = ()
    for arm, (scores, cut) in ARMS.items():
        c[f"{arm}_pruned"] = dict(
            kind="prune",
            start=small.teacher(),
            mixture=mixture,
            prune=dict(
                shape=small.STUDENT | cut,
                importance=dict(samples=512, batch_size=16, seed=seed, **scores),
                seq_len=256,
            ),
        )
        c[arm] = dict(
            kind="distill",
            start=f"{arm}_pruned",
            mixture=mixture,
            distill=dict(teacher=small.teacher(), dtype="float32"),
            train=small.train(small.TOKENS // 50, small.HEALING),
        )
        c.stages = (*c.stages, f"{arm}_pruned", arm)
    return c
