"""An embedding model from a decoder (LLM2Vec, arXiv:2404.05961): masked next-token prediction, then contrastive loss.

    kanana run --config configs/embed.py:MODEL,TEXTS,PAIRS --workdir runs/embed

MODEL is a stage of a workdir, a model folder or a Hugging Face folder. TEXTS is a file or folder of documents. PAIRS is
a file or folder of lines `{"anchor", "positive", "negatives"?}`: a question, a passage that answers it and, optionally,
passages that do not. Without PAIRS (`embed.py:MODEL,TEXTS`) the second stage is SimCSE on the documents. To embed a
file with the result: `kanana embed runs/embed/contrastive FILE --output vectors`.
"""

from typing import Any

from kanana_jax.configs import sft


def get_config(arg: str = ""):
    model, _, rest = arg.partition(",")
    texts, _, pairs = rest.partition(",")
    if not model or not texts:
        raise ValueError("name a model, texts and, to learn from them, pairs: configs/embed.py:MODEL,TEXTS,PAIRS")
    c = sft.one_source("embed", model, "texts", texts, holdout=0.02, max_bytes=200_000)
    if pairs:
        c.sources.pairs = dict(path=pairs, lang="ko", holdout=0.02)
    c.stages = ("mntp", "contrastive")
    # LLM2Vec's settings. MNTP: learning rate 5e-5, LoRA rank 16. SimCSE: 3e-5, dropout 0.3. Supervised: 2e-4, 300 steps
    # of warm-up (here 100).
    c.mntp = dict(
        kind="mntp",
        start=model,
        mixture=dict(texts=1.0),
        lora=dict(rank=16, alpha=32.0),
        train=_train(5e-5, 16_384, 512),
    )
    section: dict[str, Any] = dict(
        kind="contrastive",
        start="mntp",
        mixture=dict(pairs=1.0) if pairs else dict(texts=1.0),
        lora=dict(rank=16, alpha=32.0),
        contrastive=dict(temperature=0.05, false_negative=0.1 if pairs else None),
        chunks=4,
        train=_train(2e-4, 65_536, 512) if pairs else _train(3e-5, 65_536, 512),
    )
    if pairs:
        # Ends with a line break: a trailing space would merge into the first token of the question.
        section["instruction"] = "Instruct: Given a question, find the passage that answers it\nQuery:\n"
    else:
        section.update(form="texts", dropout=0.3, longest=128)
    c.contrastive = section
    return c


def _train(learning_rate: float, batch_tokens: int, seq_len: int) -> dict[str, Any]:
    return dict(
        tokens=1000 * batch_tokens,
        batch_tokens=batch_tokens,
        seq_len=seq_len,
        optimizer=dict(
            learning_rate=learning_rate,
            weight_decay=0.0,
            schedule=dict(kind="cosine", warmup_steps=100, final=0.1),
        ),
        log_every=10,
        eval_every=100,
        checkpoint=dict(every=100, keep_last=2, keep_best=1),
    )
