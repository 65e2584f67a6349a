"""The steps of LLM2Vec (arXiv:2404.05961, §2) on a small bilingual model, one arm each.

    python benchmarks/embedding_steps.py DOCUMENTS TRIPLETS --sts … --squad …   (all arms in their order, with scores)
    kanana run --config configs/ablations/embedding.py:base --workdir runs/embedding/base
    kanana run --config configs/ablations/embedding.py:ARM,SEED --workdir runs/embedding/ARM-SEED

All arms share one base: the model of `configs/real.py` (5.2M parameters) on 2.8M tokens of
`runs/embedding/data/documents`. An arm starts from the base or from another arm of the same seed (START): `simcse` is
LLM2Vec's unsupervised model, `supervised` its supervised model, `supervised_direct` the same without masked next-token
prediction. `mntp` and `simcse` read the base's documents, `simcse` only their first 128 tokens. The supervised arms
read `runs/embedding/data/triplets.jsonl` (`anchor`, `positive`, `negative`). All weights are trained, since adapters
save nothing in a model of this size; only `simcse` uses dropout. The benchmark script fills `runs/embedding/data`.
"""

from typing import Any

from kanana_jax.configs import real

FOLDER = "runs/embedding"
DATA, BASE = f"{FOLDER}/data", f"{FOLDER}/base"
# arm: the arm that it starts from (empty: the base).
START = {"mntp": "", "simcse": "mntp", "supervised": "mntp", "supervised_direct": ""}
ARMS = tuple(START)
LONGEST = 128  # tokens; longer texts are truncated
# Learning rates, untuned. LLM2Vec trains adapters at 5e-5, 3e-5 and 2e-4.
MNTP, SIMCSE, SUPERVISED = 5e-4, 3e-4, 3e-4


def get_config(arg: str = "mntp,0"):
    arm, _, seed = arg.partition(",")
    if arm not in (*ARMS, "base"):
        raise ValueError(f"known: base, and the arms {', '.join(ARMS)}")
    c = real.get_config(f"{DATA}/documents")
    c.name = "embedding"
    c.seed = int(seed or 0)
    c.samples.prompts = {}
    if arm == "base":
        c.stage1.train.tokens = 2_240_000
        c.stage2.train.tokens = 560_000
        for name in c.stages:
            c[name].train.eval_every = 0
            c[name].train.checkpoint = dict(every=25, keep_last=1, keep_best=0)
        return c
    c.tokenizer = dict(path=f"{BASE}/tokenizer")
    c.stages = (arm,)
    start = f"{FOLDER}/{START[arm]}-{c.seed}/{START[arm]}" if START[arm] else f"{BASE}/stage2"
    documents = c.stage1.mixture.to_dict()
    if arm == "mntp":
        c.mntp = dict(kind="mntp", start=start, mixture=documents, train=_train(MNTP, 160, 16, 256))
    elif arm == "simcse":
        train = _train(SIMCSE, 60, 16, 512)
        c.simcse = dict(
            kind="contrastive", start=start, mixture=documents, form="texts", dropout=0.3, longest=LONGEST, train=train
        )
    else:
        c.sources.triplets = dict(path=f"{DATA}/triplets.jsonl", lang="ko", holdout=0.02)
        c.filters.triplets = {}  # sentences are short
        train = _train(SUPERVISED, 60, 16, 512)
        c[arm] = dict(kind="contrastive", start=start, mixture=dict(triplets=1.0), longest=LONGEST, train=train)
    return c


def _train(learning_rate: float, steps: int, rows: int, seq_len: int) -> dict[str, Any]:
    """Training settings for a number of steps, without evaluations: arms are compared at their end."""
    return dict(
        tokens=steps * rows * seq_len,
        batch_tokens=rows * seq_len,
        seq_len=seq_len,
        optimizer=dict(
            learning_rate=learning_rate,
            weight_decay=0.0,
            schedule=dict(kind="cosine", warmup_steps=10, final=0.1),
        ),
        log_every=10,
        checkpoint=dict(every=20, keep_last=1, keep_best=0),
    )
