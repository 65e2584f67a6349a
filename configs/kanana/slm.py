"""Kanana-2's small models: a 3B from scratch, and a 1.3B with half the width and sliding windows, distilled from it.

    kanana run --config configs/kanana/slm.py:/data/documents --workdir /runs/slm
    kanana run --config configs/kanana/slm.py:tiny --workdir runs/slm       # the same steps on two cores: microworld

Shapes are in `models/presets.py`: those of the published checkpoints, in part inferred from their exact parameter
counts. Pruning 3B to 1.3B halves the width, keeps 70% of the MLP, all layers, all heads and head_dim, and ties the
embeddings. Three of four layers of the student attend to 1,024 tokens from its first step on; it learns to do without
the rest from a teacher with full attention.

Not stated by the authors, chosen here: the tokens (2.7T, 300B and 300B, as in the first report); a WSD schedule
(arXiv:2404.06395) whose decay is stage 2; rows of 8,192 tokens; learning rates by the first report's law and by its
distillation. A micro-batch has 16 rows.
"""

import dataclasses

from kanana_jax.configs import tiny
from kanana_jax.configs.kanana import common
from ml_collections import ConfigDict

from kanana_jax.models import presets
from kanana_jax.models.architecture import Architecture, LayerKind

MICRO_ROWS = 16
DISTILLED_TOKENS = 300_000_000_000
BATCH_TOKENS = 512 * common.SEQ_LEN


def get_config(arg: str = "documents"):
    return _tiny(arg) if arg in ("tiny", "test") else _full(arg)


def _full(documents: str) -> ConfigDict:
    c = common.base("slm", documents, dict(data=1, fsdp=-1, tensor=1))
    c.stages = ("stage1", "stage2", "pruned", "student")
    large, small = presets.kanana_2_3b(), presets.kanana_2_1_3b()
    total = common.STAGE1_TOKENS + common.STAGE2_TOKENS
    stable, decay = dict(kind="constant", warmup_steps=2000), dict(kind="wsd", warmup_steps=0, decay=1.0, final=0.05)
    for name, tokens, schedule in (("stage1", common.STAGE1_TOKENS, stable), ("stage2", common.STAGE2_TOKENS, decay)):
        train = common.train(large, tokens, total, schedule=schedule)
        train["accumulate"] = train["batch_tokens"] // (MICRO_ROWS * common.SEQ_LEN)
        mixture = common.STAGE1_MIXTURE if name == "stage1" else common.STAGE2_MIXTURE
        c[name] = ConfigDict(dict(kind="pretrain", mixture=mixture, train=train))
    c.stage1.model = large.to_dict()
    c.stage2.start = "stage1"
    c.pruned = dict(
        kind="prune",
        start="stage2",
        mixture=common.STAGE2_MIXTURE,
        prune=dict(shape=_cut(small), importance=dict(samples=1024, batch_size=256), seq_len=common.SEQ_LEN),
    )
    c.student = dict(
        kind="distill",
        start="pruned",
        mixture=common.STAGE2_MIXTURE,
        distill=dict(teacher="stage2", dtype="bfloat16"),
        train=dict(
            tokens=DISTILLED_TOKENS,
            batch_tokens=BATCH_TOKENS,
            seq_len=common.SEQ_LEN,
            accumulate=BATCH_TOKENS // (MICRO_ROWS * common.SEQ_LEN),
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
    return c


def _cut(small: Architecture) -> dict:
    """The `prune.shape` section that cuts the large model to the shape of `small`."""
    kinds = tuple(dataclasses.asdict(kind) for kind in small.layer_pattern)
    return dict(embed_dim=small.embed_dim, mlp_dim=small.mlp_dim, tie_embeddings=True, layer_pattern=kinds)


def _tiny(arg: str) -> ConfigDict:
    """The same four stages on the demo's data and lengths: QK norm, untied teacher, windows of an eighth of a row."""
    c = tiny.get_config("test" if arg == "test" else "")
    c.name = "slm"
    c.stages = ("stage1", "stage2", "pruned", "student")
    del c.upscaled, c.deeper
    seq_len = c.stage1.train.seq_len
    c.stage1.model.update(qk_norm="head", tied_embeddings=False)
    c.stage1.train.optimizer.schedule = dict(
        kind="constant", warmup_steps=c.stage1.train.optimizer.schedule.warmup_steps
    )
    c.stage2.train.optimizer.schedule = dict(kind="wsd", warmup_steps=0, decay=1.0, final=0.05)
    before = Architecture.from_dict(c.stage1.model.to_dict())
    pattern = (*(LayerKind(seq_len // 8),) * (min(before.num_layers, 4) - 1), LayerKind())
    small = dataclasses.replace(
        before, embed_dim=before.embed_dim // 2, mlp_dim=before.mlp_dim * 45 // 64, layer_pattern=pattern
    )
    c.pruned.prune.shape = _cut(small)
    return c
