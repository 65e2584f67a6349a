"""Data made from documents in a run's report: the questions kept, and pairs of answers."""

import pathlib
from typing import Any

from kanana_jax.files import read_json
from kanana_jax.report.page import Block, Chapter, Code, Details, Table

RESULT = "rag_data.json"
SHOWN = 3  # pairs per stage
Json = dict[str, Any]
# Count → its column.
_COLUMNS = {
    "passages": "passages",
    "asked": "questions asked",
    "given": "of them the documents' own",
    "no_question": "no question",
    "repeated": "repeated",
    "no_answer": "no answer",
    "ungrounded": "ungrounded",
    "kept": "kept",
    "refined": "of them refined",
    "unanswerable": "nothing found",
    "pairs": "pairs",
    "negatives_grounded": "no negative",
}


def blocks(results: dict[str, Json]) -> list[Block]:
    """A table of the stages that made data, and some of their pairs.

    Args:
      results: stage → its `rag_data.json`.
    """
    if not results:
        return []
    rows = [(name, *(found["counts"].get(key, 0) for key in _COLUMNS)) for name, found in results.items()]
    caption = (
        "Kept: answers grounded in their passage; nothing found: further conversations with other passages only. "
        "Pairs: a grounded answer, and one given without the passage that is not; no negative: that one is, too."
    )
    made: list[Block] = [Table(("stage", *_COLUMNS.values()), rows, caption)]
    for name, found in results.items():
        if found["shown"]:
            texts = [
                f"{pair['prompt'][-1]['content']}\n\n+ {pair['chosen'][-1]['content']}\n"
                f"- {pair['rejected'][-1]['content']}"
                for pair in found["shown"]
            ]
            made.append(Details(f"Pairs of {name}", [Code(text) for text in texts]))
    return made


def _blocks(folders: dict[str, pathlib.Path]) -> list[Block]:
    results = {name: read_json(folder / RESULT) for name, folder in folders.items()}
    return blocks({name: found for name, found in results.items() if found is not None})


CHAPTER = Chapter("Questions and answers made of documents", _blocks)
