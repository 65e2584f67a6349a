"""The student's loss at small scale: divergence, temperature, share of cross-entropy (arXiv:2407.14679, Table 5), and
how many of a cached teacher's most probable tokens distillation needs.

    kanana run --config configs/ablations/small.py --workdir runs/small/teacher
    kanana run --config configs/ablations/divergences.py:0 --workdir runs/small/divergences/0
    python benchmarks/arms.py runs/small/divergences --against forward \
        --stages forward reverse jsd t2 t4 ce10 ce50 ce_only top256 top64 top16 top4 top16_ce30

Every arm starts from one pruned model and reads the same 5% of the teacher's tokens in the same order.
"""

from kanana_jax.configs.ablations import small

ARMS = {
    "forward": {},
    "reverse": dict(divergence="reverse"),
    "jsd": dict(divergence="jsd"),
    "t2": dict(temperature=2.0),
    "t4": dict(temperature=4.0),
    "ce10": dict(ce_weight=0.1),
    "ce50": dict(ce_weight=0.5),
    "ce_only": dict(ce_weight=1.0),
}
CACHED = {  # arm: (cached tokens per position, share of cross-entropy)
    "top256": (256, 0.0),
    "top64": (64, 0.0),
    "top16": (16, 0.0),
    "top4": (4, 0.0),
    "top16_ce30": (16, 0.3),
}


def get_config(arg: str = "0"):
    c = small.base(f"divergences {arg}", int(arg))
    mixture = small.mixture(c)
    c.pruned = small.pruned(mixture)
    tokens = small.TOKENS // 20
    c.cache = dict(
        kind="cache_teacher",
        start=small.teacher(),
        mixture=mixture,
        cache_teacher=dict(k=256, tokens=tokens, batch_tokens=4096, seq_len=256, dtype="float32"),
    )
    c.stages = ("pruned", *ARMS, "cache", *CACHED)
    signals = {arm: dict(teacher=small.teacher(), dtype="float32", loss=loss) for arm, loss in ARMS.items()}
    for arm, (k, ce_weight) in CACHED.items():
        signals[arm] = dict(cache="cache", top_k=k, loss=dict(ce_weight=ce_weight))
    for arm, signal in signals.items():
        c[arm] = dict(
            kind="distill", start="pruned", mixture=mixture, distill=signal, train=small.train(tokens, small.HEALING)
        )
    return c
