"""The paper's post-training (arXiv:2502.18934, §3.1) of its 8B: SFT, reward model, offline and online DPO, merge.

    kanana run --config configs/kanana/post_training.py:/data/post,/runs/essence_8b/stage2 --workdir /runs/instruct

`/data/post` holds a folder of conversations, pairs or prompts for each source below. The mixtures are the paper's: 1.2M
conversations and 407K preferences by domain. The reward model starts from the fine-tuned model. Online DPO starts from
the offline DPO model, which stays its reference. It learns from answers that the reward model scores; they are sampled
from the parameters of one update earlier, while the previous step trains.

Not stated in the paper, chosen here: learning rates and β as in Tülu 3 (arXiv:2411.15124); two epochs of conversations
at 500 tokens each, one epoch of preferences; the number, length and sampling of answers per prompt; the prompts of
online DPO, which are those of the preferences; the merged models, which the paper does not name, with equal weights.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from kanana_jax.models import presets

SEQ_LEN, ROWS = 8192, 64
# Conversations in thousands, preferences in percent.
CONVERSATIONS = {"code": 492, "mathematics": 260, "instructions": 230, "chat": 120, "safety": 96}
PREFERENCES = {"instructions": 32.9, "code": 31.7, "chat": 23.3, "mathematics": 12.0}
# A row of online DPO holds a prompt with both answers of its pair.
ONLINE_SEQ_LEN, PROMPTS, ONLINE_STEPS = 4096, 256, 400


def get_config(arg: str = "post,essence_8b"):
    documents, _, base = arg.partition(",")
    base = base or "essence_8b"
    folder = documents.rstrip("/")
    c = ConfigDict()
    c.name = "post_training"
    c.seed = 0
    c.tokenizer = dict(path=f"{folder}/tokenizer")
    c.mesh = dict(data=1, fsdp=-1, sequence=1, tensor=1, slices=1)
    c.runtime = dict(
        param_dtype="float32", compute_dtype="bfloat16", attention="auto", scan_layers=True, remat="context"
    )
    c.sources = ConfigDict(sort_keys=False)
    for form, domains in (("conversations", CONVERSATIONS), ("preferences", PREFERENCES), ("prompts", PREFERENCES)):
        for domain in domains:
            c.sources[f"{form}_{domain}"] = dict(path=f"{folder}/{form}/{domain}", lang="ko", holdout=0.01)
    c.data = dict(lanes=ROWS, workers="processes", packing="best_fit")
    c.evaluation = dict(max_bytes=1_000_000, batch_size=ROWS)
    c.plan = dict(models={pathlib.Path(base).name.replace(".", "_"): presets.essence_8b().to_dict()})
    c.stages = ("sft", "reward", "dpo", "online", "merged")
    preference = dict(loss="sigmoid", beta=5.0, length_normalised=True)
    c.sft = dict(
        kind="sft",
        start=base,
        mixture=_mixture("conversations", CONVERSATIONS),
        train=_train(5e-6, 1_200_000_000, warmup_steps=70),
    )
    c.reward = dict(
        kind="reward",
        start="sft",
        mixture=_mixture("preferences", PREFERENCES),
        reward=dict(centring=0.01),
        train=_train(3e-6, 400_000_000, warmup_steps=20),
    )
    c.dpo = dict(
        kind="dpo",
        start="sft",
        mixture=_mixture("preferences", PREFERENCES),
        preference=preference,
        train=_train(5e-7, 400_000_000, warmup_steps=80),
    )
    c.online = dict(
        kind="online_dpo",
        start="dpo",
        mixture=_mixture("prompts", PREFERENCES),
        preference=preference,
        reward=dict(model="reward"),
        rollout=dict(samples=4, max_new_tokens=1024, sampling=dict(temperature=0.8, top_p=0.95)),
        staleness=1,
        sampler_mesh=dict(data=-1, fsdp=1, tensor=4),
        train=_train(
            5e-7,
            ONLINE_STEPS * PROMPTS * ONLINE_SEQ_LEN,
            warmup_steps=20,
            batch_tokens=PROMPTS * ONLINE_SEQ_LEN,
            seq_len=ONLINE_SEQ_LEN,
            accumulate=4,
        ),
    )
    c.merged = dict(kind="merge", start="sft", merge=dict(models=("dpo", "online"), method="linear"))
    return c


def _mixture(form: str, domains: Mapping[str, float]) -> dict[str, float]:
    return {f"{form}_{domain}": float(share) for domain, share in domains.items()}


def _train(rate: float, tokens: int, *, warmup_steps: int, **changes: Any) -> dict[str, Any]:
    schedule = dict(kind="cosine", warmup_steps=warmup_steps, final=0.0)
    own = dict(
        tokens=tokens,
        batch_tokens=ROWS * SEQ_LEN,
        seq_len=SEQ_LEN,
        loss_chunk=2048,
        log_every=5,
        eval_every=200,
        optimizer=dict(learning_rate=rate, weight_decay=0.0, schedule=schedule),
        checkpoint=dict(every=200, keep_last=2, keep_best=1),
    )
    return own | changes
