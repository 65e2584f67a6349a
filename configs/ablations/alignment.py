"""Alignment on the microworld, one arm each: SFT, preferences, training on the model's own answers, merging (§3.1).

    kanana run --config configs/ablations/alignment.py:base --workdir runs/alignment/base
    kanana run --config configs/ablations/alignment.py:ARM,SEED --workdir runs/alignment/ARM-SEED
    python benchmarks/parts.py alignment        (all arms in order, with an evaluation of each)

All arms share one base; an arm starts from the base or from another arm of the same seed (START). `online_moving` is
`online` in four stages, each with its starting point as the reference. `k1` and `k4` are `online` with answers that are
1 and 4 updates old. `small_distilled` learns on its own answers from `dpo`, which is twice its size; `small_more` is
fine-tuned for more steps instead. `without_DOMAIN` is `sft` on the three other domains (in the manner of Table 9).
`special` is trained further on one domain alone, and `merged` is its mean with `sft` (in the manner of Table 11).
`dpo_own` is `dpo` on pairs of `sft`'s own answers, a right one against a wrong one (OWN_PAIRS).
"""

from kanana_jax.configs import tiny
from kanana_jax.configs.tiny_adaptation import PEOPLE
from ml_collections import ConfigDict

BASE = "runs/alignment/base"
DOMAINS = ("facts", "arithmetic", "translation", "format")
OWN_PAIRS = "runs/alignment/own_pairs-{seed}-{lang}.jsonl"  # by `kanana best-of-n --pairs`
# arm: the arm whose last stage it starts from (empty: the base).
START = {
    "sft": "",
    "reward": "sft",
    "dpo": "sft",
    "dpo_own": "sft",
    "online": "dpo",
    "grpo": "dpo",
    "small": "",
    "small_distilled": "small",
    "small_more": "small",
    "online_moving": "dpo",
    "k1": "dpo",
    "k4": "dpo",
    **{f"without_{domain}": "" for domain in DOMAINS},
    "special": "sft",
    "merged": "sft",
}
ARMS = tuple(START)
# Stages of the arms that are not a single stage with the arm's name.
STAGES = {
    "dpo_own": ("dpo",),
    "k1": ("online",),
    "k4": ("online",),
    "small": ("pruned", "sft"),
    "small_more": ("sft",),
}
CONSTANT = dict(kind="constant", warmup_steps=0)
# Of stages that sample: row tokens per answer, prompts per step, answers per prompt, new tokens, steps, learning rate.
ROW, PROMPTS, SAMPLES, NEW, STEPS, RATE = 96, 16, 8, 32, 100, 2e-4


def get_config(arg: str = "sft,0"):
    arm, _, seed = arg.partition(",")
    if arm not in (*ARMS, "base"):
        raise ValueError(f"known: base, and the arms {', '.join(ARMS)}")
    c = tiny.get_config("aligned")
    c.seed = int(seed or 0)
    c.samples.prompts = ConfigDict()
    if arm == "base":
        c.stages = ("stage1", "stage2")
        c.stage1.train.tokens, c.stage2.train.tokens = 1_600_000, 600_000
        return c
    c.tokenizer = dict(path=f"{BASE}/tokenizer")
    c.stages = STAGES.get(arm, (arm,))
    for lang in ("ko", "en"):  # from 3,000 conversations the base learns no arithmetic
        c.sources[f"{lang}_chat"].path = f"microworld://chat/{lang}?size={PEOPLE}&count=12000"
    c.sft.train.tokens = 600_000
    c.sft.train.optimizer.learning_rate = 2e-3
    c.online.train.optimizer.schedule = CONSTANT
    _sampled(c)
    before = f"runs/alignment/{START[arm]}-{c.seed}/{last_stage(START[arm])}" if START[arm] else f"{BASE}/stage2"
    c.sft.start = c.dpo.start = c.reward.start = c.online.start = c.pruned.start = before
    _MAKE.get(arm.partition("_")[0], lambda c, arm, before: None)(c, arm, before)
    for name in c.stages:  # arms are compared at their end: no evaluation on the way
        if "train" in c[name]:
            c[name].train.checkpoint = dict(every=200, keep_last=1, keep_best=0)
            c[name].train.eval_every = 0
    return c


def _sampled(c: ConfigDict) -> None:
    c.online.rollout.update(samples=SAMPLES, max_new_tokens=NEW)
    c.online.train.update(seq_len=2 * ROW, batch_tokens=PROMPTS * 2 * ROW, tokens=STEPS * PROMPTS * 2 * ROW)
    c.online.train.optimizer.learning_rate = RATE


def last_stage(arm: str) -> str:
    return "online_4" if arm == "online_moving" else STAGES.get(arm, (arm,))[-1]


def _dpo(c: ConfigDict, arm: str, before: str) -> None:
    if arm == "dpo":
        return
    c.dpo.mixture = dict(ko_own=0.5, en_own=0.5)
    for lang in ("ko", "en"):
        c.sources[f"{lang}_own"] = dict(path=OWN_PAIRS.format(seed=c.seed, lang=lang), lang=lang)
        c.filters[f"{lang}_own"] = dict()  # answers are short


def _stale(c: ConfigDict, arm: str, before: str) -> None:
    c.online.staleness = int(arm[1:])


def _online(c: ConfigDict, arm: str, before: str) -> None:
    if arm == "online":
        return
    c.stages = tuple(f"online_{i}" for i in range(1, 5))
    for i, name in enumerate(c.stages):
        c[name] = c.online.copy_and_resolve_references()
        c[name].start = f"online_{i}" if i else before
        c[name].train.tokens = c.online.train.tokens // 4


def _grpo(c: ConfigDict, arm: str, before: str) -> None:
    section = {k: v for k, v in c.online.items() if k not in ("kind", "preference")}
    c.grpo = dict(section, kind="grpo", policy=dict(kl_weight=0.02))
    _one_answer_per_row(c.grpo.train)


def _small(c: ConfigDict, arm: str, before: str) -> None:
    if arm == "small":
        c.sft.start = "pruned"
    elif arm == "small_more":
        c.sft.train.tokens = 200_000
        c.sft.train.optimizer.learning_rate = 5e-4
    else:
        section = {k: v for k, v in c.online.items() if k not in ("kind", "preference", "rollout")}
        own = dict(section, kind="on_policy_distill", start=before, teacher=f"runs/alignment/dpo-{c.seed}/dpo")
        c.small_distilled = dict(own, rollout=dict(samples=SAMPLES, max_new_tokens=NEW))
        _one_answer_per_row(c.small_distilled.train)


def _one_answer_per_row(train: ConfigDict) -> None:
    train.update(seq_len=ROW, batch_tokens=PROMPTS * ROW, tokens=STEPS * PROMPTS * ROW)


def _without(c: ConfigDict, arm: str, before: str) -> None:
    out = arm.partition("_")[2]
    c[arm] = c.sft.copy_and_resolve_references()
    c[arm].mixture = _chats(c, [domain for domain in DOMAINS if domain != out])


def _special(c: ConfigDict, arm: str, before: str) -> None:
    c.special = c.sft.copy_and_resolve_references()
    c.special.mixture = _chats(c, ["format"])
    c.special.train.tokens = 200_000


def _merged(c: ConfigDict, arm: str, before: str) -> None:
    special = f"runs/alignment/special-{c.seed}/special"
    c.merged = dict(kind="merge", start=before, merge=dict(models=(before, special), method="linear"))


def _chats(c: ConfigDict, domains: list[str]) -> dict[str, float]:
    """Adds the conversations of these domains in both languages as sources and returns their mixture."""
    names = [(domain, lang) for domain in domains for lang in ("ko", "en")]
    for domain, lang in names:
        uri = f"microworld://chat-{domain}/{lang}?size={PEOPLE}&count=4000"
        c.sources[f"{lang}_chat_{domain}"] = dict(path=uri, lang=lang)
        c.filters[f"{lang}_chat_{domain}"] = dict()  # answers are short
    return {f"{lang}_chat_{domain}": 1 / len(names) for domain, lang in names}


_MAKE = {
    "dpo": _dpo,
    "k1": _stale,
    "k4": _stale,
    "online": _online,
    "grpo": _grpo,
    "small": _small,
    "without": _without,
    "special": _special,
    "merged": _merged,
}
