"""Supervised fine-tuning on conversations (arXiv:2502.18934, §3.1), evaluated on held-out ones.

    kanana run --config configs/sft.py:MODEL,CONVERSATIONS --workdir runs/sft

MODEL is a stage of a workdir, a model folder or a Hugging Face folder with a chat template (tokenizers trained by
`kanana run` use Llama 3's). CONVERSATIONS is a file or folder of lines `{"messages": [{"role": …, "content": …}, …]}`.
They are labelled Korean; `--config.sources.chat.lang=ja` labels them otherwise.
"""

import pathlib

from ml_collections import ConfigDict

BATCH_TOKENS, SEQ_LEN = 16_384, 1024


def get_config(arg: str = ""):
    model, _, conversations = arg.partition(",")
    if not model or not conversations:
        raise ValueError("name a model and a file of conversations: configs/sft.py:MODEL,CONVERSATIONS")
    c = one_source("sft", model, "chat", conversations, holdout=0.02)
    c.data.packing = "best_fit"
    c.stages = ("sft",)
    c.sft = dict(
        kind="sft",
        start=model,
        mixture=dict(chat=1.0),
        train=dict(
            tokens=20_000_000,
            batch_tokens=BATCH_TOKENS,
            seq_len=SEQ_LEN,
            optimizer=dict(
                learning_rate=2e-5,
                weight_decay=1e-4,
                schedule=dict(kind="cosine", warmup_steps=50, final=0.1),
            ),
            log_every=10,
            eval_every=200,
            checkpoint=dict(every=200, keep_last=2, keep_best=1),
        ),
    )
    return c


def one_source(name: str, model: str, source: str, path: str, holdout: float, max_bytes: int = 1_000_000) -> ConfigDict:
    """Returns a recipe that reads one source with `model`'s own tokenizer; the caller adds the stages."""
    c = ConfigDict()
    c.name = name
    c.seed = 0
    c.tokenizer = dict(path=f"{model}/model" if (pathlib.Path(model) / "model").is_dir() else model)
    c.sources = {source: dict(path=path, lang="ko", holdout=holdout)}
    c.mesh = dict(data=1, fsdp=-1, sequence=1, tensor=1)
    c.runtime = dict(attention="auto")
    c.data = dict(lanes=4, workers="threads")
    c.evaluation = dict(max_bytes=max_bytes, batch_size=8)
    return c
