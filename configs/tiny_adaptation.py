"""The second half of `configs/tiny.py`: alignment, adaptation and evaluation (arXiv:2502.18934, §3 and §4).

Alignment (§3.1) continues from stage 2 with conversations about the same synthetic world: supervised fine-tuning, a
reward model, offline and online preference optimisation, and merging. Stage 2 is also turned into an embedding model
(LLM2Vec, as in `configs/embed.py`). The merged model learns to answer from documents (§4.2, Figure 6, as in
`configs/rag.py`) and to call functions (English before Korean, as in `configs/calls.py`). At the end, every model of
the run is evaluated.
"""

from typing import Any

from kanana_jax.configs import calls as calls_config
from kanana_jax.configs import embed as embed_config
from ml_collections import ConfigDict

# People in the world. With 4,000, a model of 2.4M parameters learns no fact and no name from 2.2M tokens (measured).
PEOPLE = 200
# Documents of two other worlds, to learn from and to be asked about, so that no answer is known without reading.
LEARNT, UNREAD = (f"microworld://faq/ko?seed={seed}&size={PEOPLE}" for seed in (1, 2))
ALIGNED = ("sft", "reward", "dpo", "online", "merged")
DOCUMENTS = ("rag_made", "rag_sft", "rag_dpo", "rag_merged")
ADAPTED = ("mntp", "contrastive", *DOCUMENTS, "calls_en", "calls_ko")
ASKED = ("stage2", "deeper", "student", "sft", "dpo", "online", "merged", *DOCUMENTS[1:], "calls_ko")


def align(c: ConfigDict, train: dict[str, Any], optimizer: dict[str, Any], share: float = 1.0) -> None:
    """Adds the alignment stages (§3.1), which start from stage 2.

    `share` scales their tokens: 1 for `tiny.py:aligned`, less for the whole recipe.
    """
    for form in ("chat", "pairs", "prompts"):
        _made(c, form, 3000)

    def section(kind: str, start: str, form: str, rate: float, tokens: int, **more: Any) -> dict[str, Any]:
        own = _train(train, optimizer, rate, int(share * tokens)) | more.pop("train", {})
        return dict(kind=kind, start=start, mixture={f"ko_{form}": 0.5, f"en_{form}": 0.5}, train=own, **more)

    c.sft = section("sft", "stage2", "chat", 2e-3, 720_000)
    c.reward = section("reward", "sft", "pairs", 3e-4, 200_000)
    c.dpo = section("dpo", "sft", "pairs", 5e-5, 200_000, preference=dict(loss="sigmoid", beta=0.1))
    c.online = section(
        "online_dpo",
        "dpo",
        "prompts",
        2e-5,
        40 * 16 * 256,  # steps × prompts per step × tokens per row
        preference=dict(loss="sigmoid", beta=0.1),
        rollout=dict(samples=4, max_new_tokens=48),
        train=dict(batch_tokens=16 * 256, log_every=1, eval_every=20),
    )
    c.merged = dict(kind="merge", start="sft", merge=dict(models=("sft", "dpo", "online"), method="linear"))


def adapt(c: ConfigDict, train: dict[str, Any], optimizer: dict[str, Any]) -> None:
    """Adds the stages of `configs/embed.py` and `configs/calls.py`, scaled down and on the embedded corpus."""
    _made(c, "retrieval", 3000)
    _made(c, "calls", 3000)
    both = {f"{lang}_encyclopedia": 0.5 for lang in ("ko", "en")}
    made = embed_config.get_config("stage2,documents,pairs")
    c.mntp = made.mntp.to_dict() | dict(mixture=both, lora=None, train=_train(train, optimizer, 1e-3, 80_000))
    c.contrastive = made.contrastive.to_dict() | dict(
        mixture={"ko_retrieval": 0.5, "en_retrieval": 0.5},
        lora=None,
        instruction="",
        chunks=1,
        train=_train(train, optimizer, 5e-4, 160_000),
    )
    made = calls_config.get_config("merged")
    rows = dict(seq_len=800, batch_tokens=4 * 800)  # long rows: a prompt describes three or four functions in JSON
    for name, section, start in (("calls_en", made.english, "merged"), ("calls_ko", made.korean, "calls_en")):
        own = _train(train, optimizer, 2e-3, 64_000, warmup=4) | rows
        mixture = calls_config.with_general(section.mixture.to_dict(), "ko_chat", "en_chat")
        c[name] = section.to_dict() | dict(start=start, mixture=mixture, train=own)


def documents(c: ConfigDict, train: dict[str, Any], optimizer: dict[str, Any]) -> None:
    """Adds the stages of Figure 6: data made from documents, fine-tuning, DPO and a merge.

    A model of this size cannot write questions, so the articles come with questions and right answers. The model only
    writes the answers that DPO rejects.
    """
    c.rag_made = dict(
        kind="rag_data",
        start="merged",
        rag_data=dict(
            documents=f"{LEARNT}&count=400",
            passages=400,
            grounding="words",
            qa=dict(questions=1, keep=0.9, refine=0, prefer=1.0, reject=0.5, distractors=1, unanswerable=0.25),
            rollout=dict(samples=1, max_new_tokens=16, sampling=dict(temperature=0.7, top_p=0.9)),
            seq_len=96,
            block=64,
        ),
    )
    for form in ("conversations", "pairs"):
        c.sources[f"rag_{form}"] = dict(path=f"{form}.jsonl", made_by="rag_made", lang="ko", holdout=0.05)
        c.filters[f"rag_{form}"] = dict()

    replay = dict(rag_conversations=0.8, ko_chat=0.1, en_chat=0.1)
    # The shapes and the optimizer of `calls_en`, so that both stages share one compiled training step.
    rows = dict(seq_len=800, batch_tokens=4 * 800)
    own = _train(train, optimizer, 2e-3, 64_000, warmup=4) | rows
    c.rag_sft = dict(kind="sft", start="merged", mixture=replay, train=own)
    rows = dict(seq_len=1024, batch_tokens=4 * 1024)  # a row holds both answers of a pair
    c.rag_dpo = dict(
        kind="dpo",
        start="rag_sft",
        mixture=dict(rag_pairs=1.0),
        preference=dict(loss="sigmoid", beta=0.1),
        train=_train(train, optimizer, 5e-5, 40_000, warmup=2) | rows,
    )
    c.rag_merged = dict(kind="merge", start="merged", merge=dict(models=("merged", "rag_dpo"), method="linear"))


def evaluate(c: ConfigDict) -> None:
    """Adds the evaluation of every model on questions about the synthetic world.

    Function calling and answering from documents are measured before and after the stages that train them, in another
    world. Best-of-n measures how much the reward model gains by choosing among the fine-tuned model's answers; most of
    its prompts ask about facts that conversations contain.
    """
    calls, prompts = (
        {f"{form}_{lang}": f"microworld://{form}/{lang}?{world}&size={PEOPLE}&count=100" for lang in ("ko", "en")}
        for form, world in (("calls", "seed=2"), ("prompts", "start=100000"))
    )
    c.evaluated = dict(
        kind="evaluate",
        start="stage1",
        models=ASKED,
        tasks=dict(names=("microworld", "microworld_arithmetic"), limit=16),
        calls=dict(models=("merged", "calls_ko"), sets=calls, limit=6, free=True),
        best_of_n=dict(policy="sft", rewards=("reward",), prompts=prompts, limit=5, n=16, max_new_tokens=24),
        documents=dict(
            models=("merged", *DOCUMENTS[1:]),
            sets=dict(documents_ko=f"{UNREAD}&count=100"),
            limit=16,
            max_new_tokens=32,
        ),
    )


def _made(c: ConfigDict, form: str, count: int) -> None:
    for lang in ("ko", "en"):
        path = f"microworld://{form}/{lang}?size={PEOPLE}&count={count}"
        c.sources[f"{lang}_{form}"] = dict(path=path, lang=lang, holdout=0.03)
        c.filters[f"{lang}_{form}"] = dict()  # answers are short


def _train(
    train: dict[str, Any], optimizer: dict[str, Any], rate: float, tokens: int, warmup: int = 10
) -> dict[str, Any]:
    schedule = dict(kind="cosine", warmup_steps=warmup, final=0.1)
    return train | dict(
        tokens=tokens,
        optimizer=optimizer | dict(learning_rate=rate, schedule=schedule),
        eval_every=50,
        checkpoint=dict(every=50, keep_last=1, keep_best=1),
    )
