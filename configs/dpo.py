"""DPO of a chat model on pairs of answers (arXiv:2502.18934, §3.1; arXiv:2305.18290).

    kanana run --config configs/dpo.py:MODEL,PAIRS --workdir runs/dpo

MODEL is a stage of a workdir, a model folder or a Hugging Face folder with a chat template. It is both the policy's
starting point and the fixed reference. PAIRS is a file or folder of lines `{"prompt", "chosen", "rejected"}`, where
each field is a string or a list of messages. Data sets whose answers repeat the whole conversation, and HH-RLHF's
transcripts, can be read as well.
"""

from typing import Any

from kanana_jax.configs import sft
from ml_collections import ConfigDict

BATCH_TOKENS, SEQ_LEN = 32_768, 2048


def get_config(arg: str = ""):
    # The paper states neither β nor learning rate: these are Zephyr's (arXiv:2310.16944). With length_normalised,
    # Tülu 3 uses β = 5 at the same rate (arXiv:2411.15124).
    return on_pairs(arg, "dpo", 5e-7, preference=dict(loss="sigmoid", beta=0.1))


def on_pairs(arg: str, kind: str, learning_rate: float, **section: Any) -> ConfigDict:
    """Returns a recipe with one stage of this kind, named after the kind, that trains on pairs of answers."""
    model, _, pairs = arg.partition(",")
    if not model or not pairs:
        raise ValueError(f"name a model and a file of pairs: configs/{kind}.py:MODEL,PAIRS")
    c = sft.one_source(kind, model, "pairs", pairs, holdout=0.05)
    c.data.packing = "best_fit"
    c.stages = (kind,)
    c[kind] = dict(
        kind=kind,
        start=model,
        mixture=dict(pairs=1.0),
        **section,
        train=dict(
            tokens=20_000_000,
            batch_tokens=BATCH_TOKENS,
            seq_len=SEQ_LEN,
            optimizer=dict(
                learning_rate=learning_rate,
                weight_decay=0.0,
                schedule=dict(kind="cosine", warmup_steps=50, final=0.1),
            ),
            log_every=10,
            eval_every=100,
            checkpoint=dict(every=100, keep_last=2, keep_best=1),
        ),
    )
    return c
