"""Best-of-N in a run's report: the gain from choosing by a reward model, and the reward model that chooses best."""

import pathlib

from kanana_jax.files import read_json
from kanana_jax.report import best_of_n
from kanana_jax.report.page import Block, Chapter, Text

RESULT = "best_of_n.json"


def _blocks(folders: dict[str, pathlib.Path]) -> list[Block]:
    blocks: list[Block] = []
    for folder in folders.values():
        found = read_json(folder / RESULT)
        if found is not None:
            text = (
                f"Answers of '{found['policy']}', of which a reward model chooses one. {best_of_n.told(found)} A point "
                "is the mean over all subsets of n of the answers to each prompt. The paper selects its reward model "
                "so (arXiv:2502.18934, §3.1)."
            )
            blocks += [Text(text), best_of_n.curves(found), best_of_n.table(found), *best_of_n.compared(found)]
    return blocks


CHAPTER = Chapter("Best of N", _blocks)
