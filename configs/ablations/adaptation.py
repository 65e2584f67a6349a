"""Answering from documents and function calling, taught to the aligned model of the embedded world (§4.2, Table 11).

    kanana run --config configs/ablations/adaptation.py:documents,SEED --workdir runs/adaptation/documents-SEED
    kanana run --config configs/ablations/adaptation.py:calls,SEED --workdir runs/adaptation/calls-SEED
    python benchmarks/parts.py adaptation       (all arms, two seeds, with their figures)

All start from the arm `sft` of `alignment.py` with the same seed. `documents` is Figure 6: data made from documents,
SFT with replay, DPO, and a merge with the starting model. `calls` learns English calls, then Korean ones,
with a fifth of conversations without functions; `calls_alone` learns without these. The documents come from two other
worlds, one for training and one for evaluation, so that no answer is known without reading.
"""

from kanana_jax.configs import tiny
from kanana_jax.configs.ablations import alignment
from kanana_jax.configs.tiny_adaptation import LEARNT

CALLS = ("calls_en", "calls_ko")
STAGES = {"documents": ("rag_made", "rag_sft", "rag_dpo", "rag_merged"), "calls": CALLS, "calls_alone": CALLS}
ARMS = tuple(STAGES)
TOKENS = dict(rag_sft=300_000, rag_dpo=80_000, calls_en=250_000, calls_ko=250_000)


def get_config(arg: str = "documents,0"):
    arm, _, seed = arg.partition(",")
    if arm not in ARMS:
        raise ValueError(f"known: {', '.join(ARMS)}")
    c = tiny.get_config()
    c.seed = int(seed or 0)
    c.samples.prompts = {}
    c.tokenizer = dict(path=f"{alignment.BASE}/tokenizer")
    c.stages = STAGES[arm]
    before = f"runs/alignment/sft-{c.seed}/sft"
    c.rag_made.start = c.rag_sft.start = c.rag_merged.start = c.calls_en.start = before
    c.rag_made.rag_data.update(documents=f"{LEARNT}&count=800", passages=800)
    c.rag_merged.merge.models = (before, "rag_dpo")
    if arm == "calls_alone":
        for name in CALLS:
            c[name].mixture = {source: share / 0.8 for source, share in c[name].mixture.items() if "calls" in source}
    read = {source for name in c.stages for source in c[name].get("mixture", {})}
    for name in [name for name in c.sources if name not in read]:  # sources that no stage reads would be evaluated, too
        del c.sources[name]
        if name in c.filters:
            del c.filters[name]
    for name, tokens in TOKENS.items():
        c[name].train.tokens = tokens
        c[name].train.checkpoint = dict(every=200, keep_last=1, keep_best=0)
        c[name].train.eval_every = 0
    return c
