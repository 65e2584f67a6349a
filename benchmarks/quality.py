"""The edu loop on real Korean text with labels that its sources give, and speed of what it trains.

    python benchmarks/quality.py --data FOLDER --output DIR [--pool 20000]

FOLDER holds `pretrain/ko/*.ko.jsonl.gz` and `noisy/*.ko.jsonl.gz` as named in SOURCES. Documents are cut into passages;
short comments are put together to pages of ten. The labels are those of the sources: what is written to teach (4),
statutes (2), petitions (1), comments and reviews (0). One passage of the pool in twenty is written to teach. Sources
that no round sees tell whether the classifier learnt its sources or the thing; `translation` asks something harder:
human against machine translation of the same documentation. `--pool-only` writes what
`configs/ablations/filtering_real.py` reads.
"""

import argparse
import dataclasses
import gzip
import json
import pathlib
import sys
import time

TEACHING = ("d2l_book", "rust_book", "python_docs")
SOURCES = {"korean_law": 2, "petitions": 1, "kocohub_comments": 0, "nsmc_reviews": 0}
UNSEEN = {"react_docs": 4, "hf_course": 4, "kocohub_labeled": 0}
PASSAGE, PAGE = 1200, 10


def rows(path: pathlib.Path) -> list[dict]:
    with gzip.open(path) as file:
        return [json.loads(line) for line in file]


def passages(folder: pathlib.Path, source: str):
    """Records of a source, of about `PASSAGE` characters, whole paragraphs each."""
    noisy = folder / "noisy" / f"{source}.ko.jsonl.gz"
    if noisy.is_file():
        texts = [record["text"] for record in rows(noisy)]
        for i in range(0, len(texts), PAGE):
            yield {"id": f"{source}-{i}", "source": source, "lang": "ko", "text": "\n".join(texts[i : i + PAGE])}
        return
    for record in rows(folder / "pretrain" / "ko" / f"{source}.ko.jsonl.gz"):
        part, number = "", 0
        for paragraph in [*record["text"].split("\n\n"), ""]:
            if part and (len(part) + len(paragraph) > PASSAGE or not paragraph):
                if len(part) > 200:
                    yield {"id": f"{record['id']}-{number}", "source": source, "lang": "ko", "text": part}
                part, number = "", number + 1
            part = f"{part}\n\n{paragraph}" if part else paragraph


def build_pool(folder: pathlib.Path, output: pathlib.Path, size: int, good: int) -> dict[str, int]:
    """Writes `pool.jsonl.gz` and `labels.jsonl`: at most `size` documents, of which at most `good` teach."""
    from kanana_jax.data.quality.documents import sample

    found, labels, counts = [], {}, {}
    for names, share in ((TEACHING, good), (SOURCES, size - good)):
        for name in names:
            part = sample(passages(folder, name), share // len(names), "pool")
            label = 4 if name in TEACHING else SOURCES[name]
            found += [{**r, "meta": {"label": label}} for r in part]
            labels |= dict.fromkeys((r["id"] for r in part), label)
            counts[name] = len(part)
    output.mkdir(parents=True, exist_ok=True)
    with gzip.open(output / "pool.jsonl.gz", "wt", encoding="utf-8", compresslevel=3) as file:
        file.writelines(json.dumps(r, ensure_ascii=False) + "\n" for r in found)
    with (output / "labels.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps({"id": i, "label": label}) + "\n" for i, label in labels.items())
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, type=pathlib.Path)
    parser.add_argument("--output", required=True, type=pathlib.Path)
    parser.add_argument("--pool", type=int, default=20_000, help="documents")
    parser.add_argument("--good", type=int, default=666, help="of these, written to teach")
    parser.add_argument("--pool-only", action="store_true", help="write the pool and end")
    options = parser.parse_args()

    import numpy as np

    from kanana_jax.data.arrays.characters import normalise
    from kanana_jax.data.quality import Classifier, ClassifierConfig, QualityModel, loop, training
    from kanana_jax.data.quality.labels import Labels
    from kanana_jax.report.quality import write_quality_report

    print(json.dumps({"pool": build_pool(options.data, options.output, options.pool, options.good)}))
    if options.pool_only:
        return
    config = loop.LoopConfig(
        pool=(str(options.output / "pool.jsonl.gz"),),
        seed_documents=300,
        evaluation_documents=4000,
        candidates=200,
        rounds=4,
    )
    classifier = ClassifierConfig(min_subword=2, max_subword=4)
    labels = Labels(options.output / "labels.jsonl", None)
    unseen = [(r, label >= 3) for name, label in UNSEEN.items() for r in sample_of(options.data, name, 400)]
    hashes = []
    for run in ("first", "second"):
        folder = options.output / run
        report = loop.run(config, classifier, labels, folder)
        write_quality_report(folder)
        hashes.append([r["model"]["sha256"] for r in report["rounds"]])
    print(json.dumps({"same models twice": hashes[0] == hashes[1]}))
    for number, r in enumerate(report["rounds"]):
        model = Classifier(QualityModel(**r["model"]))
        scores = model([normalise(x["text"]) for x, _ in unseen])
        curve = training.curves.precision_recall(np.array([good for _, good in unseen]), scores)
        keys = ("average_precision", "best_f1", "threshold", "pool_kept", "asked", "found")
        line = {"round": number, "trained_on": r["training"], **{k: r[k] for k in keys}}
        print(json.dumps(line | {"unseen_sources_average_precision": round(curve.average_precision, 4)}))
    texts = [normalise(r["text"]) for r in loop.documents(config)]
    start = time.process_time()
    model(texts)
    rate = sum(len(t.encode()) for t in texts) / 1e6 / (time.process_time() - start)
    print(json.dumps({"score_mb_per_s": round(rate, 1)}))
    translation(options.data, options.output, dataclasses.replace(classifier, dim=64))


def sample_of(folder: pathlib.Path, source: str, count: int):
    from kanana_jax.data.quality.documents import sample

    return sample(passages(folder, source), count, "unseen")


def translation(folder: pathlib.Path, output: pathlib.Path, classifier) -> None:
    """Human against machine translation; whole documents are held out, and no passage has its neighbours trained on."""
    from kanana_jax.data.quality import documents, training

    kinds = {}
    for record in rows(folder / "pretrain" / "ko" / "cpp_docs.ko.jsonl.gz"):
        kinds[record["id"]] = (record["meta"] or {}).get("translation")
    parts = {True: [], False: []}
    for r in passages(folder, "cpp_docs"):
        document = r["id"].rpartition("-")[0]
        kind = kinds[document]
        if kind in ("HT", "MT"):
            parts[documents.order_of(document, "heldout") / 2**64 < 0.2].append(training.Example(r, kind == "HT"))
    _, report = training.fit(parts[False], parts[True], classifier, output / "translation" / "model.bin")
    print(
        json.dumps({"translation": {k: report[k] for k in ("training", "evaluation", "average_precision", "best_f1")}})
    )


if __name__ == "__main__":
    sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
    main()
