"""Function calls in two stages, English before Korean, each on its own conversations (arXiv:2502.18934).

    kanana run --config configs/calls.py:MODEL --workdir runs/calls
    kanana run --config configs/calls.py:MODEL,ENGLISH,KOREAN --workdir runs/calls

MODEL is a stage of a workdir, a model folder or a Hugging Face folder with a chat template;
ENGLISH and KOREAN are files or folders of `{"messages": […], "tools": […]}` lines. Without them the embedded corpus
makes conversations: one call, two at once, asking for what is missing, none, and the answer after a result.
`kanana eval` measures the result on FunctionChat-Bench and BFCL, `kanana serve` serves it.
"""

from kanana_jax.configs import sft

MADE = "microworld://calls/{lang}?size=4000&count=20000"
KEPT = 0.2  # share of English while Korean is learnt, against forgetting


def get_config(arg: str = ""):
    model, *files = arg.split(",")
    if not model or len(files) not in (0, 2):
        raise ValueError("name a model, or a model and two files: configs/calls.py:MODEL[,ENGLISH,KOREAN]")
    english, korean = files or (MADE.format(lang=lang) for lang in ("en", "ko"))
    c = sft.one_source("calls", model, "en_calls", english, holdout=0.02)
    c.sources.en_calls.lang = "en"
    c.sources.ko_calls = dict(path=korean, lang="ko", holdout=0.02)
    c.stages = ("english", "korean")
    train = dict(
        tokens=10_000_000,
        batch_tokens=16_384,
        seq_len=2048,
        optimizer=dict(
            learning_rate=2e-5,
            weight_decay=1e-4,
            schedule=dict(kind="cosine", warmup_steps=20, final=0.1),
        ),
        log_every=10,
        eval_every=100,
        checkpoint=dict(every=100, keep_last=2, keep_best=1),
    )
    c.english = dict(kind="sft", start=model, mixture=dict(en_calls=1.0), train=train)
    c.korean = dict(kind="sft", start="english", mixture=dict(ko_calls=1 - KEPT, en_calls=KEPT), train=train)
    return c
