"""Near duplicates found and mistaken, against exact Jaccard similarity, by the local path and by Beam.

    python benchmarks/dedup_curves.py [--pairs 100] [--pages 400] [--real ko=a.jsonl.gz en=b.jsonl.gz …] [--no-beam]

Three tables of JSON lines. `pairs`: for each similarity the share of made pairs (Korean and English words) of which
one document goes. `sites`: pages that share a part, so that any two have this similarity, and the share of pages that
go. `real`: documents of files; every pair's similarity is counted over its sets of shingles. There, `precision`: of
those that go as near duplicates, the share whose kept document is in truth as similar as the threshold; `recall`: of
those that a walk in input order over all exact similarities drops, the share that goes; `least`: the lowest similarity
of a pair of which one went. Exact copies are taken out before.
"""

import argparse
import json
import pathlib
import random
import sys
import tempfile

import numpy as np
from filters import load

SIMILARITIES = (0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0)
THRESHOLD = 0.8
RUNS = {"ko": 3, "en": 5}  # words of a shingle


def words(lang: str, count: int, rng: random.Random) -> list[str]:
    """Words of a vocabulary so large that no run of them comes twice."""
    letters = "가나다라마바사아자차카타파하고노도로모보소오조초" if lang == "ko" else "abcdefghijklmnopqrstuvwxyz"
    return ["".join(rng.choices(letters, k=rng.randint(4, 7))) for _ in range(count)]


def alike(lang: str, similarity: float, length: int, count: int, rng: random.Random) -> list[str]:
    """Texts of `length` words of which any two have this similarity, or as near to it as whole words allow."""
    runs = length - RUNS[lang] + 1
    shared = round(2 * runs * similarity / (1 + similarity))
    common = words(lang, shared + RUNS[lang] - 1 if shared else 0, rng)
    return [" ".join([*common, *words(lang, length - len(common), rng)]) for _ in range(count)]


def judged(texts: list[tuple[str, str]], with_beam: bool) -> dict[str, dict[int, int]]:
    """For each path: the place of each near duplicate → that of the document kept for it. Texts are with languages."""
    from kanana_jax.data.dedup import local
    from kanana_jax.data.dedup.index import DedupConfig

    paths = {"local": local.run}
    if with_beam:
        from kanana_jax.data.dedup import beam

        paths["beam"] = beam.run
    found: dict[str, dict[int, int]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        lines = [json.dumps({"id": str(i), "text": t, "lang": lang}) for i, (lang, t) in enumerate(texts)]
        (folder / "a.jsonl").write_text("\n".join(lines), encoding="utf-8")
        for path, run in paths.items():
            run(DedupConfig(), [str(folder / "a.jsonl")], folder / path)
            rows = map(json.loads, (folder / path / "duplicates.jsonl").open(encoding="utf-8"))
            found[path] = {int(row["id"]): int(row["kept"]) for row in rows}
    return found


def pairs(count: int, with_beam: bool) -> None:
    """The first table."""
    rng, texts, what = random.Random(0), [], []
    for lang in RUNS:
        for similarity in SIMILARITIES:
            for _ in range(count):
                texts += [(lang, text) for text in alike(lang, similarity, rng.choice((100, 300, 1000)), 2, rng)]
                what.append((lang, similarity))
    for path, gone in judged(texts, with_beam).items():
        for lang in RUNS:
            own = {s: [2 * i + 1 in gone for i, w in enumerate(what) if w == (lang, s)] for s in SIMILARITIES}
            shares = {str(s): round(float(np.mean(found)), 3) for s, found in own.items()}
            print(json.dumps({"table": "pairs", "path": path, "lang": lang, "found": shares}), flush=True)


def sites(count: int, with_beam: bool) -> None:
    """The second table."""
    for lang in RUNS:
        for similarity in (0.4, 0.5, 0.6, 0.7, 0.75):
            texts = [(lang, text) for text in alike(lang, similarity, 400, count, random.Random(1))]
            gone = {path: round(len(found) / count, 3) for path, found in judged(texts, with_beam).items()}
            print(json.dumps({"table": "sites", "lang": lang, "similarity": similarity, "gone": gone}), flush=True)


def real(lang: str, texts: list[str], with_beam: bool) -> None:
    """The third table: a line for each path."""
    from scipy import sparse

    from kanana_jax.data.dedup import minhash

    texts = list({minhash.text_key(text): text for text in reversed(texts)}.values())[::-1]
    shingles = minhash.MinHashConfig().shingles
    sets = [minhash.shingle_hashes([text], shingles.get(lang, shingles["default"]))[0] for text in texts]
    _, columns = np.unique(np.concatenate(sets), return_inverse=True)
    sizes = np.array([len(own) for own in sets])
    table = sparse.csr_matrix((np.ones(len(columns), np.int32), columns, np.append(0, np.cumsum(sizes))))
    shared = (table @ table.T).tocoo()
    jaccard = sparse.csr_matrix(
        (shared.data / (sizes[shared.row] + sizes[shared.col] - shared.data), (shared.row, shared.col)), shared.shape
    )
    kept, wanted = set(), set()
    for i in range(len(texts)):
        row = jaccard[i]
        near = row.indices[(row.data >= THRESHOLD) & (row.indices < i)]
        (wanted if kept & set(near.tolist()) else kept).add(i)
    for path, gone in judged([(lang, text) for text in texts], with_beam).items():
        true = np.array([jaccard[i, k] for i, k in gone.items()])
        line = {
            "documents": len(texts),
            "pairs_above": int(((sparse.triu(jaccard, 1)).data >= THRESHOLD).sum()),
            "wanted": len(wanted),
            "gone": len(gone),
            "precision": round(float((true >= THRESHOLD).mean()), 3) if len(true) else None,
            "above_0.75": round(float((true >= 0.75).mean()), 3) if len(true) else None,
            "recall": round(len(wanted & set(gone)) / len(wanted), 3) if wanted else None,
            "least": round(float(true.min()), 3) if len(true) else None,
        }
        print(json.dumps({"table": "real", "lang": lang, "path": path, **line}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=100)
    parser.add_argument("--pages", type=int, default=400)
    parser.add_argument("--real", nargs="+", default=[], metavar="LANG=PATH")
    parser.add_argument("--documents", type=int, default=4000, help="of each language, drawn evenly from its files")
    parser.add_argument("--no-beam", action="store_true")
    options = parser.parse_args()
    with_beam = not options.no_beam
    if options.pairs:
        pairs(options.pairs, with_beam)
    if options.pages:
        sites(options.pages, with_beam)
    texts: dict[str, list[str]] = {}
    for item in options.real:
        lang, _, path = item.partition("=")
        texts.setdefault(lang, []).extend(load(path, float("inf")))
    for lang, found in texts.items():
        real(lang, found[:: max(1, -(-len(found) // options.documents))], with_beam)


if __name__ == "__main__":
    sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
    main()
