"""Verifiable instructions: IFBench, with the checks of its publisher's package."""

import importlib
from collections.abc import Mapping, Sequence
from typing import Any


def ifbench(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, Any]:
    """Whether instructions are followed, by prompt and by instruction, strictly and loosely.

    The loose check also accepts the answer without its first or last line or its asterisks (arXiv:2311.07911, §2.2).
    """
    checks = importlib.import_module("ifbench.instructions_registry").INSTRUCTION_DICT
    lines = results[0].split("\n")
    kept = ("\n".join(part) for part in (lines, lines[1:], lines[:-1], lines[1:-1]))
    variants = [form for text in kept for form in (text.strip(), text.replace("*", "").strip())]
    strict, loose = [], []
    for name, options in zip(doc["instruction_id_list"], doc["kwargs"], strict=True):
        check = checks[name](name)
        check.build_description(**{key: value for key, value in (options or {}).items() if value is not None})
        if "prompt" in (check.get_instruction_args() or {}):
            check.build_description(prompt=doc["prompt"])
        strict.append(bool(results[0].strip()) and bool(check.check_following(results[0])))
        loose.append(strict[-1] or any(text and bool(check.check_following(text)) for text in variants))
    return {
        "prompt_level_strict_acc": float(all(strict)),
        "inst_level_strict_acc": strict,
        "prompt_level_loose_acc": float(all(loose)),
        "inst_level_loose_acc": loose,
    }


def over_instructions(items: Sequence[Sequence[bool]]) -> float:
    """The share of instructions that are followed, over all documents."""
    found = [followed for item in items for followed in item]
    return sum(found) / len(found) if found else 0.0
