"""The cost of a run's stages in its report, and of a family of models compared with training each from scratch."""

import pathlib
from typing import Any

from kanana_jax.data.stream import teacher_cache
from kanana_jax.files import read_json
from kanana_jax.interop.model_folder import CARD
from kanana_jax.report.page import Block, Chapter, Table, Text

Json = dict[str, Any]
# Stages that make base models: the family whose cost is compared. Later stages would be needed either way.
_FAMILY = ("pretrain", "upscale", "prune", "search", "cache_teacher", "distill")
# Of `model.json`'s `flops`, as the table of stages calls them.
_ROLES = {
    "train": "training",
    "teacher": "other models",
    "sampler": "sampler",
    "reward": "reward model",
    "calibration": "calibration",
}
_WRITTEN = "tokens of the sampler"


def family_cost(cards: dict[str, Json]) -> Json | None:
    """The cost of a family of models compared with training each from scratch.

    The family consists of the trained models that no other stage starts from. From scratch, each would have cost its
    own FLOPs per token times the tokens seen by the models that were trained from scratch. Kanana's 11.06% is counted
    in the same way (arXiv:2502.18934, §2.2): 1 − spent / scratch.

    Args:
      cards: stage → its `model.json`.

    Returns:
      `spent` (students, teachers, calibration, by kind), `scratch`, `saved` share, `models`; None without surgery.
    """
    if not any(
        card["flops"]["calibration"] or card["flops"]["teacher"] or not card["tokens"] for card in cards.values()
    ):
        return None
    parent_of = {name: _stage_of(card["parent"], cards) for name, card in cards.items()}
    leaves = [name for name, card in cards.items() if card["tokens"] and name not in parent_of.values()]
    base = sum(card["tokens"] for name, card in cards.items() if _from_scratch(name, cards, parent_of))
    spent = {key: sum(card["flops"][key] for card in cards.values()) for key in ("train", "teacher", "calibration")}
    scratch = sum(cards[name]["flops"]["train"] / cards[name]["tokens"] * base for name in leaves)
    total = sum(spent.values())
    return {"spent": spent, "total": total, "scratch": scratch, "saved": 1 - total / scratch if scratch else 0.0,
            "models": leaves, "tokens": base}  # fmt: skip


def _stage_of(parent: str | None, cards: dict[str, Json]) -> str | None:
    """The stage that a parent path names."""
    parts = pathlib.PurePath(parent).parts if parent else ()
    return next((part for part in reversed(parts) if part in cards), None)


def _from_scratch(name: str, cards: dict[str, Json], parent_of: dict[str, str | None]) -> bool:
    """Returns whether a stage trains a model that never went through surgery."""
    current: str | None = name
    while current is not None:
        card = cards[current]
        if not card["tokens"] or card["flops"]["teacher"] or card.get("cache"):
            return False
        current = parent_of[current]
    return True


def cost_blocks(cards: dict[str, Json]) -> list[Block]:
    """The family's ledger."""
    found = family_cost(cards)
    if found is None:
        return []
    spent = found["spent"]
    rows = [
        ("training", spent["train"]),
        ("teachers' forward passes", spent["teacher"]),
        ("calibration", spent["calibration"]),
        ("all together", found["total"]),
        (f"{', '.join(found['models'])} from scratch, {found['tokens']:,} tokens each", found["scratch"]),
    ]
    words = "saved" if found["saved"] >= 0 else "more"
    return [
        Table(("what", "FLOPs"), rows, formats={"FLOPs": ".4g"}),
        Text(
            f"{abs(100 * found['saved']):.1f}% {words} than training each from scratch for as many tokens as the "
            "base saw."
        ),
    ]


def ledger(folders: dict[str, pathlib.Path]) -> dict[str, Json]:
    """The `model.json` of each finished stage; a cached teacher counts as forward passes without a model."""
    cards: dict[str, Json] = {}
    for name, folder in folders.items():
        card, index = read_json(folder / "model" / CARD), read_json(folder / teacher_cache.INDEX)
        if card is not None:
            cards[name] = card
        elif index is not None:
            cards[name] = cache_card(index)
    return cards


def cache_card(index: Json) -> Json:
    """The share of a cached teacher in the cost of a family: a forward pass, but no model."""
    return {"tokens": 0, "flops": index["flops"], "parent": None}


def stage_costs(cards: dict[str, Json]) -> list[Block]:
    """FLOPs of each stage, and its share of the total."""
    spent = {name: {role: card["flops"].get(role, 0.0) for role in _ROLES} for name, card in cards.items()}
    sums = {role: sum(own[role] for own in spent.values()) for role in _ROLES}
    total = sum(sums.values())
    if len(cards) < 2 or not total:
        return []
    roles = [role for role in _ROLES if sums[role] or role in ("train", "teacher", "calibration")]
    written = {name: card.get("other_tokens", {}).get("sampler") for name, card in cards.items()}
    sampled = any(written.values())
    parts = {name: [own[role] for role in roles] for name, own in spent.items()}
    rows = [
        (name, *own, sum(own), 100 * sum(own) / total, *((written.get(name),) if sampled else ()))
        for name, own in [*parts.items(), ("all together", [sums[role] for role in roles])]
        if sum(own)
    ]
    columns = ("stage", *(_ROLES[role] for role in roles), "FLOPs", "share, %", *((_WRITTEN,) if sampled else ()))
    caption = "Other models: teachers and references. Matrix products with causal attention."
    if sampled:
        caption += (
            " Sampler: prompts are read once for each answer; all answers count, even those that nothing is learnt "
            "from, but padding does not. Like any evaluation, answers to held-out prompts are excluded."
        )
    formats = dict.fromkeys(columns[1 : len(roles) + 2], ".3g") | {"share, %": ".1f"}
    return [Table(columns, rows, caption, formats)]


def family_ledger(folders: dict[str, pathlib.Path]) -> dict[str, Json]:
    """The part of `ledger` that makes base models; all of it where the kinds of its stages are unknown."""
    config = (read_json(next(iter(folders.values())).parent / "config.json") or {}).get("config", {}) if folders else {}
    kinds = {name: section.get("kind", "") for name in folders if isinstance(section := config.get(name), dict)}
    return {name: card for name, card in ledger(folders).items() if kinds.get(name, _FAMILY[0]) in _FAMILY}


CHAPTER = Chapter("Cost", lambda folders: [*stage_costs(ledger(folders)), *cost_blocks(family_ledger(folders))])
