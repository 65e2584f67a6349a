"""Kanana's small models (arXiv:2502.18934, §2.3): 8B → 4.5B → 2.1B → 1.3B → 635M → 385M → 192M.

    kanana run --config configs/kanana/chain.py:/data/documents,/runs/essence_8b/stage2 --workdir /runs/chain

Each model is pruned in width from the model before it and distilled from the 8B's final logits: KL divergence only,
cosine from 1.2e-4, 512 × 8,192 tokens per step, 100 warm-up steps. The input and output embeddings are averaged and
tied when 4.5B is pruned to 2.1B. Models above 2B train on stage 2's mixture, smaller ones on a mixture with more
general English ('stage 2 en++').

Not stated in the paper, chosen here: the tokens of all sizes but 2.1B (0.3T, as for 2.1B); how much more English en++
has (its share is taken from code and academic text); 1,024 calibration rows, as in Minitron.
"""

import pathlib

from kanana_jax.configs.kanana import common
from ml_collections import ConfigDict

from kanana_jax.models import presets

TOKENS = 300_000_000_000
BATCH_TOKENS = 512 * common.SEQ_LEN
ENGLISH_MORE = common.STAGE2_MIXTURE | {"en_web": 35.3, "code": 19.3, "academic": 20.8}
CHAIN = ("nano_4_5b", "nano_2_1b", "nano_1_3b", "nano_635m", "nano_385m", "nano_192m")


def get_config(arg: str = "documents,essence_8b"):
    documents, _, base = arg.partition(",")
    c = common.base("chain", documents, dict(data=1, fsdp=-1, tensor=1))
    c.stages = ()
    c.plan.models = {pathlib.Path(base or "essence_8b").name.replace(".", "_"): presets.essence_8b().to_dict()}
    before, start = presets.essence_8b(), base or "essence_8b"
    for name in CHAIN:
        after = getattr(presets, name)()
        large = name in ("nano_4_5b", "nano_2_1b")
        mixture = common.STAGE2_MIXTURE if large else ENGLISH_MORE
        c[f"{name}_pruned"] = dict(
            kind="prune",
            start=start,
            mixture=mixture,
            prune=dict(
                shape=dict(
                    embed_dim=after.embed_dim,
                    mlp_dim=after.mlp_dim,
                    num_heads=after.num_heads,
                    tie_embeddings=after.tied_embeddings and not before.tied_embeddings,
                ),
                importance=dict(samples=1024, batch_size=256),
                seq_len=common.SEQ_LEN,
            ),
        )
        c[name] = ConfigDict(
            dict(
                kind="distill",
                start=f"{name}_pruned",
                mixture=mixture,
                distill=dict(teacher=base or "essence_8b", dtype="bfloat16"),
                train=dict(
                    tokens=TOKENS,
                    batch_tokens=BATCH_TOKENS,
                    seq_len=common.SEQ_LEN,
                    accumulate=BATCH_TOKENS // (common.MICRO_ROWS * common.SEQ_LEN),
                    loss_chunk=1024,
                    log_every=10,
                    eval_every=1000,
                    optimizer=dict(
                        learning_rate=1.2e-4,
                        weight_decay=1e-4,
                        schedule=dict(kind="cosine", warmup_steps=100, final=0.0),
                    ),
                    checkpoint=dict(every=500, keep_last=3, keep_best=1),
                    guard=dict(spike=10.0, after=1000, stop_after=20),
                ),
            )
        )
        c.stages = (*c.stages, f"{name}_pruned", name)
        before, start = after, name
    return c
