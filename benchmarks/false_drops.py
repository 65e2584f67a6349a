"""What the shipped filters drop of good text, and what they catch of junk, by source; and what a quality model adds.

    python benchmarks/false_drops.py --data DATA [--per-source 100] [--seed 0] [--show] [--quality]
    python benchmarks/false_drops.py --data DATA --reference OUT

DATA has `pretrain/LANG/NAME.LANG.jsonl.gz` (statutes, petitions, literature, documentation) and
`noisy/NAME.LANG.jsonl.gz` (comments, reviews, text messages). Two thirds of the good documents, by the hash of `doc`,
are what the thresholds were fitted on: `--reference` writes them, a file a kind, for `kanana thresholds`. Judged is a
seeded sample of the others. `tests/data/filters/{bad,good}_pages.jsonl` are pages written for this: advertisements,
machine-translated shops, lists of keywords, link farms, broken templates; and good texts about the same words.
`--show` prints each dropped document.

`--quality`: fastText learns bad pages from good text in five parts, four for training and one for measuring; a good
text is an excerpt as long as a page. Every page is judged by a model that has not seen it.

To measure an older revision, copy this file and the pages into its tree.
"""

import argparse
import gzip
import hashlib
import json
import pathlib
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator

REFERENCE = 172  # of 256 hashes
KINDS = {
    "ko": {
        "law": ("korean_law",),
        "petitions": ("petitions",),
        "tensorflow": ("tensorflow_docs",),
        "cpp": ("cpp_docs",),
        "guides": ("python_docs", "react_docs", "rust_book", "hf_course", "d2l_book"),
    },
    "ja": {"literature": ("aozora",), "tensorflow": ("tensorflow_docs", "hf_course"), "cpp": ("cpp_docs",)},
    "en": {
        "books": ("classic_books",),
        "cpp": ("cpp_docs",),
        "tensorflow": ("tensorflow_docs",),
        "guides": ("python_docs", "d2l_book", "hf_course"),
    },
}
NOISY = {"ko": ("kocohub_comments", "kocohub_labeled", "nsmc_reviews"), "en": ("sms_spam",)}
PAGES = pathlib.Path(__file__).parents[1] / "tests/data/filters"
FOLDS, PAGE = 5, {"ko": 300, "ja": 400, "en": 550}  # characters


def rows(path: pathlib.Path) -> Iterator[dict]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            yield {**row, "id": str(row["id"]), "source": path.name.split(".")[0]}


def is_reference(row: dict) -> bool:
    return hashlib.blake2b(str(row.get("doc", row["id"])).encode()).digest()[0] < REFERENCE


def write_reference(data: pathlib.Path, out: pathlib.Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for lang, kinds in KINDS.items():
        for kind, names in kinds.items():
            with gzip.open(out / f"{lang}_{kind}.jsonl.gz", "wt", encoding="utf-8") as file:
                for row in (r for n in names for r in rows(data / f"pretrain/{lang}/{n}.{lang}.jsonl.gz")):
                    if is_reference(row):
                        record = {"id": row["id"], "text": row["text"], "lang": lang}
                        file.write(json.dumps(record, ensure_ascii=False) + "\n")


def pages(name: str, lang: str) -> list[dict]:
    lines = (PAGES / f"{name}_pages.jsonl").read_text(encoding="utf-8").splitlines()
    return [{**row, "source": f"{name}_pages"} for row in map(json.loads, lines) if row["lang"] == lang]


def shipped(lang: str):
    from kanana_jax import config as config_lib
    from kanana_jax.data.filters import Filter, FilterConfig

    file = pathlib.Path(__file__).parents[1] / f"configs/data/{lang}.py"
    section = config_lib.read_config_file(str(file)).filters[lang]
    return Filter(config_lib.build(FilterConfig, section, f"filters.{lang}"))


def sample(found: list[dict], count: int, seed: int) -> list[dict]:
    return random.Random(seed).sample(found, min(count, len(found)))


def judge(lang: str, sets: dict[str, list[dict]], show: bool) -> dict[str, set[str]]:
    """Prints a line a set; returns the ids that fall, by set."""
    filter_, fallen = shipped(lang), {}
    for name, records in sets.items():
        verdicts = [v for i in range(0, len(records), 100) for v in filter_.judge(records[i : i + 100])]
        rules = Counter(rule for v in verdicts for rule in v.rules)
        fallen[name] = {r["id"] for r, v in zip(records, verdicts) if v.rules}
        line = {"lang": lang, "set": name, "documents": len(records), "dropped": len(fallen[name])}
        print(json.dumps(line | {"rules": dict(rules.most_common(5))}, ensure_ascii=False), flush=True)
        for record, verdict in zip(records, verdicts):
            if show and verdict.rules and len(fallen[name]) < len(records):
                print("   ", record["id"], " ".join(verdict.rules), repr(record["text"][:200]))
    return fallen


def excerpts(records: list[dict], lang: str, seed: int) -> list[str]:
    """A piece of each document as long as a page."""
    draw, found = random.Random(seed), []
    for record in records:
        start = draw.randrange(max(1, len(record["text"]) - PAGE[lang]))
        found.append(record["text"][start : start + PAGE[lang]])
    return found


def quality(lang: str, good: list[dict], fallen: set[str], seed: int) -> None:
    """Prints how many bad pages models that have not seen them catch, at some losses of good text."""
    import numpy as np

    from kanana_jax.data.arrays.characters import normalise
    from kanana_jax.data.quality import Classifier, ClassifierConfig, QualityModel
    from kanana_jax.data.quality.classifier import OTHER, train
    from kanana_jax.data.quality.quality_model import GOOD

    bad, touchy = pages("bad", lang), pages("good", lang)
    texts = [*(p["text"] for p in bad), *(p["text"] for p in touchy), *excerpts(good, lang, seed)]
    kinds = np.array([0] * len(bad) + [1] * len(touchy) + [2] * len(good))
    fold = np.array([i % FOLDS for i in range(len(texts))])
    scores = np.zeros(len(texts))
    config = ClassifierConfig(min_subword=2, max_subword=5, dim=16, buckets=50_000, epochs=30, min_count=1, seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        for part in range(FOLDS):
            seen = [i for i in np.flatnonzero(fold != part) for _ in range((len(good) // len(bad), 5, 1)[kinds[i]])]
            path = pathlib.Path(folder) / f"{part}.bin"
            labels = [OTHER if kinds[i] == 0 else GOOD for i in seen]
            train([normalise(texts[i]) for i in seen], labels, config, path)
            unseen = np.flatnonzero(fold == part)
            model = Classifier(QualityModel(str(path), config.text, config.max_characters))
            scores[unseen] = model([normalise(texts[i]) for i in unseen])
    by_rules = np.array([page["id"] in fallen for page in bad])
    for loss in (0.01, 0.02, 0.05):
        threshold = np.quantile(scores[kinds == 2], loss)
        caught = scores[kinds == 0] < threshold
        line = {"lang": lang, "quality": loss, "bad": len(bad), "caught": int(caught.sum())}
        line |= {"rules": int(by_rules.sum()), "rules_or_quality": int((caught | by_rules).sum())}
        line |= {"good_pages_lost": int((scores[kinds == 1] < threshold).sum()), "good_pages": len(touchy)}
        print(json.dumps(line | {"threshold": round(float(threshold), 3)}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, type=pathlib.Path)
    parser.add_argument("--reference", type=pathlib.Path)
    parser.add_argument("--per-source", type=int, default=100, metavar="N")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--show", action="store_true")
    parser.add_argument("--quality", action="store_true")
    options = parser.parse_args()
    if options.reference:
        write_reference(options.data, options.reference)
        return
    for lang, kinds in KINDS.items():
        sets, held = {}, []
        for name in (name for names in kinds.values() for name in names):
            found = [r for r in rows(options.data / f"pretrain/{lang}/{name}.{lang}.jsonl.gz") if not is_reference(r)]
            sets[name] = sample(found, options.per_source, options.seed)
            held += sets[name]
        for name in NOISY.get(lang, ()):
            junk = [r for r in rows(options.data / f"noisy/{name}.{lang}.jsonl.gz") if r.get("label") != "ham"]
            sets[name] = sample(junk, 10 * options.per_source, options.seed)
        sets |= {f"{name}_pages": pages(name, lang) for name in ("bad", "good")}
        fallen = judge(lang, sets, options.show)
        good = sum(len(sets[n]) for names in kinds.values() for n in names)
        dropped = sum(len(fallen[n]) for names in kinds.values() for n in names)
        print(json.dumps({"lang": lang, "good": good, "dropped": dropped, "share": round(dropped / good, 4)}))
        if options.quality:
            quality(lang, held, fallen["bad_pages"], options.seed)


if __name__ == "__main__":
    sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
    main()
