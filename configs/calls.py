"""Function calling in two stages of fine-tuning, English before Korean (arXiv:2502.18934).

    kanana run --config configs/calls.py:MODEL --workdir runs/calls
    kanana run --config configs/calls.py:MODEL,ENGLISH,KOREAN --workdir runs/calls
    kanana run --config configs/calls.py:MODEL,ENGLISH,KOREAN,GENERAL --workdir runs/calls

MODEL is a stage of a workdir, a model folder or a Hugging Face folder with a chat template.
ENGLISH and KOREAN are files or folders of lines `{"messages": […], "tools": […]}`. Without them, the conversations come
from the embedded corpus: one call, two calls at once, a question about a missing argument, no call, and an answer from
a call's result. GENERAL is a file or folder of conversations without functions, a fifth of the tokens of both stages: a
model that learns calls alone forgets how to answer without them. GENERAL is labelled Korean
(`--config.sources.general.lang=en` for English). `kanana eval` measures the model on
FunctionChat-Bench and BFCL; `kanana serve` serves it.
"""

from kanana_jax.configs import sft

MADE = "microworld://calls/{lang}?size=4000&count=20000"
KEPT = 0.2  # share of English calls in the Korean stage, and of GENERAL in both, against forgetting


def get_config(arg: str = ""):
    model, *files = arg.split(",")
    if not model or len(files) not in (0, 2, 3):
        raise ValueError(
            "name a model, or a model and two or three files: configs/calls.py:MODEL[,ENGLISH,KOREAN[,GENERAL]]"
        )
    english, korean, *general = files or (MADE.format(lang=lang) for lang in ("en", "ko"))
    c = sft.one_source("calls", model, "en_calls", english, holdout=0.02)
    c.sources.en_calls.lang = "en"
    c.sources.ko_calls = dict(path=korean, lang="ko", holdout=0.02)
    for path in general:
        c.sources.general = dict(path=path, lang="ko", holdout=0.02)
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
    both = (dict(en_calls=1.0), dict(ko_calls=1 - KEPT, en_calls=KEPT))
    english_only, korean_too = (with_general(mixture, "general") if general else mixture for mixture in both)
    c.english = dict(kind="sft", start=model, mixture=english_only, train=train)
    c.korean = dict(kind="sft", start="english", mixture=korean_too, train=train)
    return c


def with_general(mixture: dict[str, float], *sources: str) -> dict[str, float]:
    """A mixture of calls whose share KEPT goes to sources without functions."""
    shares = {name: round((1 - KEPT) * share, 6) for name, share in mixture.items()}
    return shares | dict.fromkeys(sources, KEPT / len(sources))
