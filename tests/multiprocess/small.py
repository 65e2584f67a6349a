"""The smallest recipe that still goes through data, training, checkpoints and a model: seconds of start-up a process."""

from ml_collections import ConfigDict

from kanana_jax.models import presets

VOCAB = 400
STEPS = 50


def get_config():
    c = ConfigDict()
    c.name = "small"
    c.seed = 0
    c.tokenizer = dict(vocab_size=VOCAB, train_bytes=50_000)
    c.sources = ConfigDict(sort_keys=False)
    for kind in ("news", "dialogue"):
        c.sources[kind] = dict(path=f"microworld://{kind}/en?size=100&count=100", lang="en", holdout=0.0)
    c.mesh = dict(data=1, fsdp=-1, sequence=1, tensor=1, slices=1)
    c.runtime = dict(attention="auto", scan_layers=False)
    c.data = dict(lanes=8, workers="threads")
    c.samples = dict(prompts=dict())
    c.stages = ("stage1",)
    c.stage1 = dict(
        kind="pretrain",
        model=presets.tiny(
            VOCAB, embed_dim=32, mlp_dim=64, num_layers=1, num_heads=4, num_kv_heads=2, head_dim=8
        ).to_dict(),
        mixture=dict(news=0.7, dialogue=0.3),
        train=dict(
            tokens=STEPS * 480,
            batch_tokens=480,
            seq_len=60,  # attention in one block: a third less to compile for every process
            # At 4e-3 after two steps of warm-up the loss breaks out near step 25 and amplifies the rounding of sums in
            # another order, on one process just as on four; here it does not.
            optimizer=dict(learning_rate=1e-3, weight_decay=1e-4, schedule=dict(kind="multi_step", warmup_steps=10)),
            log_every=1,
            checkpoint=dict(every=4, keep_last=3),
        ),
    )
    return c
