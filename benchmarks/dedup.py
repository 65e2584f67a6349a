"""MinHash: signatures per second against datatrove and rensa, how often similar documents meet, memory at scale.

    python benchmarks/dedup.py --input ko=a.jsonl.gz en=b.jsonl.gz ja=c.jsonl.gz [--mb 4] [--rensa] [--peer PYTHON]
    python benchmarks/dedup.py --documents 1000000
    python benchmarks/dedup.py --compare 100000

PYTHON is an interpreter with datatrove, as for filters.py. MB are UTF-8, seconds are the process's own; reading is not
counted. `--documents N` judges N made documents, one in ten a near copy, and prints time and peak
memory. `--compare N` writes N documents, one in ten a copy with up to three of sixty words changed, and compares every
file that the local path and Beam's Direct runner make of them.
"""

import argparse
import json
import pathlib
import resource
import sys
import tempfile
import time

from filters import CODES, load, run_peer


def peer(job: dict) -> None:
    """datatrove's signatures, FineWeb's settings; runs under the other interpreter."""
    from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupSignature
    from datatrove.utils.hashing import HashConfig

    for lang, texts in job["texts"].items():
        config = MinhashConfig(hash_config=HashConfig(precision=64, hash_fc="xxhash"))
        signer = MinhashDedupSignature(tempfile.mkdtemp(), config, language=CODES[lang])
        start = time.process_time()
        for text in texts:
            shingles = signer.get_shingles(text)
            if shingles.size:
                signer.get_signature(shingles)
        seconds = time.process_time() - start
        print(json.dumps({"lang": lang, "mb_per_s": sum(len(t.encode()) for t in texts) / 1e6 / seconds}), flush=True)


def ours(lang: str, texts: list[str]) -> float:
    from kanana_jax.data.dedup import minhash

    config = minhash.MinHashConfig()
    shingles = config.shingles.get(lang, config.shingles["default"])
    start = time.process_time()
    for i in range(0, len(texts), 16):
        for found in minhash.shingle_hashes(texts[i : i + 16], shingles):
            minhash.band_keys(found, config)
            minhash.sketch(found, config)
    return sum(len(t.encode()) for t in texts) / 1e6 / (time.process_time() - start)


def rensa(texts: list[str]) -> float:
    """rensa's RMinHash of 112 permutations over whitespace word 5-grams."""
    from rensa import RMinHash

    start = time.process_time()
    for text in texts:
        words = text.split()
        sketch = RMinHash(num_perm=112, seed=0)
        sketch.update([" ".join(words[i : i + 5]) for i in range(max(len(words) - 4, 1))])
        sketch.digest()
    return sum(len(t.encode()) for t in texts) / 1e6 / (time.process_time() - start)


def scale(count: int) -> dict:
    """Judging alone: keys of made documents, every tenth sharing a band with the one before and its sketch."""
    import numpy as np

    from kanana_jax.data.dedup import local
    from kanana_jax.data.dedup.index import DedupConfig, Index

    rng = np.random.default_rng(0)
    config = DedupConfig()
    bands = rng.integers(1, 2**63, (count, config.hashing.bands)).astype(np.uint64)
    bands[9::10, 3] = bands[8::10, 3][: len(bands[9::10])]
    sketches = rng.integers(1, 256, (count, config.hashing.bins), np.uint8)
    sketches[9::10] = sketches[8::10][: len(bands[9::10])]
    texts = rng.integers(0, 2**63, (count, 2)).astype(np.uint64)
    found = Index(
        [str(i) for i in range(count)],
        bands,
        sketches,
        texts,
        np.ones(count, np.int64),
        np.full(count, np.nan),
        np.arange(count),
        np.zeros(count, np.uint32),
    )
    start = time.perf_counter()
    kinds, _ = local.judge(found, config)
    return {
        "documents": count,
        "near": int((kinds == 2).sum()),
        "seconds": round(time.perf_counter() - start, 1),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def compare(count: int, folder: pathlib.Path) -> dict:
    """Bytes of the outputs of the local path and of Beam, on the same documents."""
    import random

    from kanana_jax.data.dedup import beam, local
    from kanana_jax.data.dedup.index import DedupConfig

    rng, texts = random.Random(0), []
    while len(texts) < count:
        words = [str(rng.randint(0, 10**6)) for _ in range(60)]
        texts.append(" ".join(words))
        if rng.random() < 0.1:
            for _ in range(rng.randint(0, 3)):
                words[rng.randrange(60)] = str(rng.randint(0, 10**6))
            texts.append(" ".join(words))
    with (folder / "documents.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps({"id": str(i), "text": text}) + "\n" for i, text in enumerate(texts[:count]))
    inputs, seconds, reports = [str(folder / "documents.jsonl")], {}, {}
    for name, run in (("local", local.run), ("beam", beam.run)):
        start = time.perf_counter()
        reports[name] = run(DedupConfig(), inputs, folder / name)
        seconds[name] = round(time.perf_counter() - start, 1)
    files = ("verdicts.safetensors", "duplicates.jsonl", "report.json")
    same = {f: (folder / "local" / f).read_bytes() == (folder / "beam" / f).read_bytes() for f in files}
    found = {k: reports["local"][k] for k in ("documents", "exact", "near")}
    return {**found, "same": same, "seconds": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", nargs="+", default=[], metavar="LANG=PATH")
    parser.add_argument("--mb", type=float, default=4.0)
    parser.add_argument("--peer", default="")
    parser.add_argument("--rensa", action="store_true")
    parser.add_argument("--documents", type=int, default=0)
    parser.add_argument("--compare", type=int, default=0)
    parser.add_argument("--as-peer", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.as_peer:
        peer(json.loads(pathlib.Path(options.as_peer).read_text(encoding="utf-8")))
        return
    if options.documents:
        print(json.dumps(scale(options.documents)))
        return
    if options.compare:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(compare(options.compare, pathlib.Path(folder))))
        return
    texts: dict[str, list[str]] = {}
    for item in options.input:
        lang, _, path = item.partition("=")
        texts.setdefault(lang, []).extend(load(path, options.mb))
    theirs = {}
    if options.peer:
        theirs = {row["lang"]: row["mb_per_s"] for row in run_peer(options.peer, {"texts": texts}, __file__)}
    for lang, found in texts.items():
        line = {"lang": lang, "ours_mb_per_s": round(max(ours(lang, found) for _ in range(3)), 2)}
        if options.rensa:
            line["rensa_mb_per_s"] = round(rensa(found), 2)
        if lang in theirs:
            line["datatrove_mb_per_s"] = round(theirs[lang], 2)
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
    main()
