"""Which scores to prune by (arXiv:2502.18934, Table 15), small: loss right after pruning and after distillation.

    kanana run --config configs/ablations/importance.py:teacher --workdir runs/importance/teacher
    for arm in kanana no_alignment no_layer_sum gate_up batch_mean sequence_l2 swapped wanda magnitude random; do
      for seed in 0 1 2; do
        kanana run --config configs/ablations/importance.py:$arm,$seed --workdir runs/importance/arms/$arm-$seed
      done; done
    python benchmarks/arms.py runs/importance/arms --against kanana
    python benchmarks/arms.py runs/importance/arms --against kanana --first

One teacher; the seed draws the calibration text, the order of the data, and the ranks of `random`. Half of the MLP, a
third of the width and of the query heads go, as between the paper's sizes; the student sees 250k tokens.
"""

from ml_collections import ConfigDict

from kanana_jax.models import presets

VOCAB = 2048
TEACHER = "runs/importance/teacher/stage1"
KINDS = ("news", "encyclopedia", "dialogue", "textbook")
ARMS = {  # arm: (how parts are scored, how they are cut)
    "kanana": ({}, {}),
    "no_alignment": ({}, dict(align_groups=False)),
    "no_layer_sum": (dict(layer_sum=False), {}),
    "gate_up": (dict(neurons="gate_up"), {}),
    "batch_mean": (dict(batch="mean"), {}),
    "sequence_l2": (dict(sequence="l2"), {}),
    "swapped": (dict(sequence="l2", batch="mean"), {}),
    "rescaled": ({}, dict(rescale_norms=True)),
    "wanda": (dict(method="wanda"), {}),
    "magnitude": (dict(method="magnitude"), {}),
    "random": (dict(method="random"), {}),
}


def get_config(arg: str = "kanana,0"):
    arm, _, seed = arg.partition(",")
    if arm not in ("teacher", *ARMS):
        raise ValueError(f"arms: teacher, {', '.join(ARMS)}")
    c = ConfigDict()
    c.name = f"importance {arm}"
    c.seed = int(seed or 0)
    c.tokenizer = dict(vocab_size=VOCAB, train_bytes=2_000_000)
    c.sources = ConfigDict(sort_keys=False)
    for lang in ("ko", "en"):
        for kind in KINDS:
            c.sources[f"{lang}_{kind}"] = dict(path=f"microworld://{kind}/{lang}?count=6000", lang=lang, holdout=0.02)
    mixture = {name: 1 / len(c.sources) for name in c.sources}
    c.mesh = dict(data=1, fsdp=-1, sequence=1, tensor=1)
    c.runtime = dict(attention="auto", scan_layers=False)
    c.data = dict(lanes=4, workers="threads")
    c.evaluation = dict(max_bytes=20_000, batch_size=16)
    optimizer = dict(learning_rate=4e-3, weight_decay=1e-4, schedule=dict(kind="cosine", warmup_steps=30, final=0.05))
    train = dict(
        tokens=4_000_000,
        batch_tokens=4096,
        seq_len=256,
        optimizer=optimizer,
        log_every=20,
        eval_every=200,
        checkpoint=dict(every=200, keep_last=1, keep_best=0),
    )
    if arm == "teacher":
        model = presets.tiny(VOCAB, embed_dim=144, mlp_dim=384, num_layers=4, num_heads=6, num_kv_heads=2, head_dim=24)
        c.stages = ("stage1",)
        c.stage1 = dict(kind="pretrain", model=model.to_dict(), mixture=mixture, train=train)
        return c
    scores, cut = ARMS[arm]
    # The teacher's vocabulary, whatever the seed.
    c.tokenizer = dict(path=TEACHER.rsplit("/", 1)[0] + "/tokenizer")
    c.stages = ("pruned", "student")
    c.pruned = dict(
        kind="prune",
        start=TEACHER,
        mixture=mixture,
        prune=dict(
            shape=dict(embed_dim=96, mlp_dim=192, num_heads=4, **cut),
            importance=dict(samples=256, batch_size=16, seed=int(seed or 0), **scores),
            seq_len=256,
        ),
    )
    healing = optimizer | dict(learning_rate=2e-3, schedule=dict(kind="cosine", warmup_steps=10, final=0.05))
    c.student = dict(
        kind="distill",
        start="pruned",
        mixture=mixture,
        distill=dict(teacher=TEACHER, dtype="float32"),
        train=train | dict(tokens=250_000, eval_every=0, optimizer=healing),
    )
    return c
