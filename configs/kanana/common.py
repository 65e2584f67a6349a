"""Common parts of the paper's pre-training configs (arXiv:2502.18934, §2.1–2.2 and Figure 2)."""

import pathlib

from ml_collections import ConfigDict

from kanana_jax.data.filters.licences import PERMISSIVE
from kanana_jax.data.read import kanana_mixtures
from kanana_jax.models import laws
from kanana_jax.models.architecture import Architecture

SEQ_LEN = 8192
STAGE1_TOKENS, STAGE2_TOKENS = 2_700_000_000_000, 300_000_000_000
# Up-scaled models continue for 100B tokens on each stage's mixture (§2.3).
UPSCALED_TOKENS = 100_000_000_000

# Rows (sequences) per micro-batch: one for each chip of the largest listed mesh.
MICRO_ROWS = 256

STAGE1_MIXTURE, STAGE2_MIXTURE = kanana_mixtures.STAGE1, kanana_mixtures.STAGE2
LANGUAGE = {"ko_web": "ko"}


def base(name: str, documents: str, mesh: dict, remat: str = "context") -> ConfigDict:
    """Everything but the stages. `documents` is a folder with `tokenizer/` and one folder per category of Figure 2."""
    folder = documents.rstrip("/")  # may be in a bucket
    c = ConfigDict()
    c.name = name
    c.seed = 0
    c.tokenizer = dict(path=f"{folder}/tokenizer")
    c.mesh = dict(sequence=1, slices=1) | mesh
    # Not stated in the paper, chosen here: parameters and moments in float32, computation in bfloat16.
    c.runtime = dict(param_dtype="float32", compute_dtype="bfloat16", attention="auto", scan_layers=True, remat=remat)
    c.sources = ConfigDict(sort_keys=False)
    for category in STAGE2_MIXTURE:
        c.sources[category] = dict(path=f"{folder}/{category}", lang=LANGUAGE.get(category, "en"), holdout=0.00001)
    c.data = dict(lanes=256, workers="processes", prefetch=8)
    # §2.1: only permissively licensed code; a file without a stated licence is left out.
    c.filters = dict(code=dict(licences=PERMISSIVE))
    c.evaluation = dict(max_bytes=4_000_000, batch_size=256)
    c.samples = dict(prompts=dict(ko=("대한민국의 수도는",), en=("The capital of Korea is",)), max_new_tokens=64)
    # For `kanana plan`: the price of a chip-hour, bytes/s per chip between slices (0: unknown), and the architectures
    # of models whose folders are not on this machine.
    c.plan = dict(prices=dict(v4=0.0, v5e=0.0, v5p=0.0, v6e=0.0), dcn_bandwidth=dict(v4=0.0), models={})
    c.stages = ("stage1", "stage2")
    return c


def train(architecture: Architecture, tokens: int, total_tokens: int, *, schedule: dict, peak: float = 1.0) -> dict:
    """Training settings of a stage of `tokens` tokens.

    Learning rate and batch follow from DeepSeek LLM's law (arXiv:2401.02954, §3.1) for `total_tokens`, the whole of
    pre-training; `peak` scales the learning rate. The batch is rounded to micro-batches of 256 sequences, so that every
    listed mesh divides it.
    """
    law = laws.recommend(architecture, total_tokens, SEQ_LEN)
    batch = max(round(law.batch_tokens / (MICRO_ROWS * SEQ_LEN)), 1) * MICRO_ROWS * SEQ_LEN
    return dict(
        tokens=tokens,
        batch_tokens=batch,
        seq_len=SEQ_LEN,
        accumulate=batch // (MICRO_ROWS * SEQ_LEN),
        z_loss=5e-6,
        loss_chunk=2048,
        log_every=10,
        eval_every=1000,
        optimizer=dict(learning_rate=round(peak * law.learning_rate, 8), weight_decay=1e-4, schedule=schedule),
        checkpoint=dict(every=500, keep_last=3, keep_best=1),
        guard=dict(spike=10.0, after=1000, stop_after=20),
    )


def from_scratch(name: str, architecture: Architecture, documents: str, mesh: dict) -> ConfigDict:
    """Stage 1 (2.7T tokens) and stage 2 (300B) under one multi-step schedule.

    After the warm-up, the learning rate drops to 31.6% of its peak at 80% of all tokens and to 10% at 90%.
    """
    c = base(name, documents, mesh)
    total = STAGE1_TOKENS + STAGE2_TOKENS
    # The drops at 80% and 90% of 3T tokens, as shares of stage 1. All of stage 2 runs at 10%.
    drops = ((0.8 * total / STAGE1_TOKENS, 0.316), (0.9 * total / STAGE1_TOKENS, 0.1))
    first = dict(kind="multi_step", warmup_steps=2000, drops=drops)
    c.stage1 = dict(
        kind="pretrain",
        model=architecture.to_dict(),
        mixture=STAGE1_MIXTURE,
        train=train(architecture, STAGE1_TOKENS, total, schedule=first),
    )
    c.stage2 = dict(
        kind="pretrain",
        start="stage1",
        mixture=STAGE2_MIXTURE,
        train=train(architecture, STAGE2_TOKENS, total, schedule=dict(kind="constant", warmup_steps=0), peak=0.1),
    )
    return c


def upscaled(name: str, architecture: Architecture, start: str, documents: str, mesh: dict) -> ConfigDict:
    """Continued training of an up-scaled model; `start` is the folder of the deeper model.

    The paper does not state the learning rate. Chosen here: a tenth of the law's peak, constant for 100B tokens of
    stage 1's mixture, then a cosine to 1% of that over 100B tokens of stage 2's mixture.
    """
    c = base(name, documents, mesh)
    c.plan.models = {pathlib.Path(start).name.replace(".", "_"): architecture.to_dict()}
    total = STAGE1_TOKENS + STAGE2_TOKENS
    first = dict(kind="constant", warmup_steps=100)
    c.stage1 = dict(
        kind="pretrain",
        start=start,
        mixture=STAGE1_MIXTURE,
        train=train(architecture, UPSCALED_TOKENS, total, schedule=first, peak=0.1),
    )
    second = dict(kind="cosine", warmup_steps=0, final=0.01)
    c.stage2 = dict(
        kind="pretrain",
        start="stage1",
        mixture=STAGE2_MIXTURE,
        train=train(architecture, UPSCALED_TOKENS, total, schedule=second, peak=0.1),
    )
    return c
