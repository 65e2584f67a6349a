"""How well passages are found by words: KorQuAD 1.0, JSQuAD and Korean statutes.

    python benchmarks/retrieval.py --squad ko=KorQuAD_v1.0_dev.json --squad ja=valid-v1.3.json --output retrieval.json
    python benchmarks/retrieval.py --statutes korean_law.jsonl.gz --output statutes.json

A set of `--squad` is a file of SQuAD's form, or PASSAGES,QUERIES: lines of {"id", "text"} and of {"query", "positive"},
the id of a passage; or documents of the embedded world (`microworld://faq/en?…`). Each of 1,000 questions has one right
passage. nDCG@10 is then 1 / log2(1 + rank), and recall@10 whether the rank is at most 10. `--rerank MODEL` orders the
first 20 passages by morphemes anew. `--statutes` takes records with `text` and `title`; the questions and the articles
that answer them are in `statute_questions.jsonl`.
"""

import argparse
import gzip
import json
import math
import pathlib
import random
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from kanana_jax.applications import passages, words
from kanana_jax.applications.retrieval import Bm25, Least, best
from kanana_jax.data.read import records

CUTS = {"words between spaces": words.spaced, "characters in twos": words.bigrams, "morphemes": words.morphemes}
LOOKED_AT = 10


class Set(NamedTuple):
    """Passages, and questions with the place of the passage that answers each."""

    texts: list[str]
    questions: list[tuple[str, int]]


def read(value: str) -> Set:
    """A set of `--squad`."""
    if value.startswith("microworld://"):
        told = {row["meta"]["entity"]: row for row in records.read(value, source="")}  # else several would be right
        rows = list(told.values())
        return Set([row["text"] for row in rows], [(_asked(row), place) for place, row in enumerate(rows)])
    files = value.split(",")
    if len(files) == 2:
        texts = {row["id"]: row["text"] for row in _lines(files[0])}
        place = {key: i for i, key in enumerate(texts)}
        return Set(list(texts.values()), [(row["query"], place[row["positive"]]) for row in _lines(files[1])])
    with opened(value) as file:
        articles = json.load(file)["data"]
    contexts: dict[str, int] = {}
    questions = []
    for paragraph in (p for article in articles for p in article["paragraphs"]):
        text = paragraph["context"].split("[SEP]")[-1].strip()  # JSQuAD puts the title before it
        place = contexts.setdefault(text, len(contexts))
        questions += [(row["question"], place) for row in paragraph["qas"]]
    return Set(list(contexts), questions)


def _asked(row: dict[str, Any]) -> str:
    return row["meta"]["questions"][0]["question"]


def opened(file: str):
    """A file of text, packed or not."""
    return gzip.open(file, "rt", encoding="utf-8") if file.endswith(".gz") else open(file, encoding="utf-8")


def _lines(file: str) -> Iterator[dict[str, Any]]:
    with opened(file) as lines:
        yield from map(json.loads, lines)


def rank(order: Sequence[int], right: int) -> int | None:
    """The rank of the right place, from 1 on."""
    return list(order).index(right) + 1 if right in order else None


def drawn(found: Set, most: int, seed: int) -> list[tuple[str, int]]:
    """Questions, at most `most` of them, drawn by a seed."""
    return random.Random(seed).sample(found.questions, min(most, len(found.questions)))


def summary(ranks: Sequence[int | None]) -> dict[str, float]:
    """Scores of ranks of right places among the first ten."""
    gains = np.array([1 / math.log2(1 + r) if r else 0.0 for r in ranks])
    return {
        "questions": len(ranks),
        "ndcg@10": float(gains.mean()),
        "ndcg_stderr": float(gains.std(ddof=1) / math.sqrt(len(gains))),
        "recall@10": sum(r is not None for r in ranks) / len(ranks),
    }


def measured(found: Set, cut: words.Cut, most: int, seed: int) -> dict[str, float]:
    """Scores of one way to cut texts into words, over `most` questions drawn by a seed."""
    questions = drawn(found, most, seed)
    start = time.perf_counter()
    index = Bm25(cut(found.texts))
    indexed = time.perf_counter()
    ranks = []
    for question, right in questions:
        (asked,) = cut([question])
        ranks.append(rank(best(index.scores(asked), LOOKED_AT).tolist(), right))
    seconds = time.perf_counter() - indexed
    timed = {"index_s": indexed - start, "queries_per_s": len(questions) / seconds}
    return {"passages": len(found.texts), **summary(ranks), **timed}


def reranked(found: Set, model: str, most: int, seed: int) -> dict[str, float]:
    """Scores of a language model's order of the first passages by morphemes, and of theirs."""
    from kanana_jax.applications import reranking
    from kanana_jax.applications.passages import Passage
    from kanana_jax.applications.retrieval import Hit
    from kanana_jax.inference.session import Session

    session, index = Session.load(model), Bm25(words.morphemes(found.texts))
    before, after, seconds = [], [], 0.0
    for question, right in drawn(found, most, seed):
        (asked,) = words.morphemes([question])
        first = best(index.scores(asked), reranking.LOOKED_AT).tolist()
        hits = [Hit(Passage(str(place), found.texts[place], "", "", ""), 0.0, 0.0, 0.0) for place in first]
        begun = time.perf_counter()
        order = [int(hit.passage.id) for hit in reranking.reranked(session, question, hits)]
        seconds += time.perf_counter() - begun
        before.append(rank(first[:LOOKED_AT], right))
        after.append(rank(order[:LOOKED_AT], right))
    return summary(after) | {"ndcg@10 before": summary(before)["ndcg@10"], "s_per_query": seconds / len(after)}


def unanswered(found: Set, most: int, seed: int) -> dict[str, float]:
    """Half of the passages are taken away: what `Least.words` keeps of right passages, and tells of the rest."""
    questions = drawn(found, most, seed)
    kept = {place: i for i, place in enumerate(range(0, len(found.texts), 2))}
    index, right, told = Bm25(words.morphemes([found.texts[place] for place in kept])), [], []
    for question, place in questions:
        (asked,) = words.morphemes([question])
        order = best(index.scores(asked), LOOKED_AT).tolist()
        if place not in kept:
            told.append(not any(index.share(asked, i) >= Least().words for i in order))
        elif kept[place] in order:
            right.append(index.share(asked, kept[place]) >= Least().words)
    return {"right passages kept": float(np.mean(right)), "questions without one told": float(np.mean(told))}


def statutes(file: str) -> dict[str, Any]:
    """The rank of the right article for each question, by each way to cut."""
    found = [
        passage
        for row in _lines(file)
        for passage in passages.of_record({"id": row["id"], "text": row["text"], "meta": {"title": row["title"]}})
    ]
    questions = list(_lines(str(pathlib.Path(__file__).with_name("statute_questions.jsonl"))))
    results: dict[str, Any] = {"passages": len(found), "questions": questions}
    for name, cut in CUTS.items():
        index, ranks, shares = Bm25(cut([passage.searched for passage in found])), [], []
        for row in questions:
            (asked,) = cut([row["question"]])
            order = best(index.scores(asked), len(found)).tolist()
            there = [i for i, place in enumerate(order) if _is(found[place], row)]
            ranks.append(there[0] + 1 if there else None)
            shares.append(index.share(asked, order[there[0]]) if there else 0.0)
        results[name] = {"ranks": ranks, "shares": [round(share, 3) for share in shares]}
        results[name] |= {f"top {k}": sum(r is not None and r <= k for r in ranks) for k in (1, 5, 10)}
        print(name, results[name], flush=True)
    return results


def _is(passage: passages.Passage, row: dict[str, Any]) -> bool:
    return passage.title == row["title"] and passage.heading.rpartition(" › ")[2].split(" ")[0] == row["article"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--squad", action="append", default=[], metavar="NAME=FILE", help="a set; may be repeated")
    parser.add_argument("--statutes", default="", metavar="FILE", help="records of laws as Markdown")
    parser.add_argument("--rerank", default="", metavar="MODEL", help="language model")
    parser.add_argument("--questions", type=int, default=1000, metavar="N", help="of each set, at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=pathlib.Path, required=True, metavar="FILE.json")
    options = parser.parse_args()
    words.morphemes(["한국어"])  # the analyser is loaded before anything is timed
    results: dict[str, Any] = {}
    for name, _, value in (given.partition("=") for given in options.squad):
        found = read(value)
        results[name] = {cut: measured(found, how, options.questions, options.seed) for cut, how in CUTS.items()}
        results[name]["least"] = unanswered(found, options.questions, options.seed)
        if options.rerank:
            results[name]["reranked"] = reranked(found, options.rerank, options.questions, options.seed)
        for row in results[name].items():
            print(name, *row, flush=True)
    if options.statutes:
        results["statutes"] = statutes(options.statutes)
    options.output.write_text(json.dumps(results, ensure_ascii=False, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
