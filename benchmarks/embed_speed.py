"""CPU seconds of `kanana embed` and of sentence-transformers on the same exported folder and texts.

    python benchmarks/embed_speed.py exported documents.jsonl --python PEER/bin/python --limit 400 --output speed.json

EXPORTED is a folder of `kanana export`; PEER is an environment with sentence-transformers. Each makes vectors of all
texts twice, sentence-transformers in a process of its own: the second pass is measured (user and system time of the
process with its threads), so that neither loading nor compiling counts. The vectors of both are compared.
"""

import argparse
import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

_PEER = """
import json, resource, sys, time
import numpy as np
from sentence_transformers import SentenceTransformer
folder, texts, batch, out, threads = sys.argv[1:]
import torch
torch.set_num_threads(int(threads))
model, texts = SentenceTransformer(folder, device="cpu"), json.load(open(texts, encoding="utf-8"))
def spent():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
model.encode(texts, batch_size=int(batch))
cpu, wall = spent(), time.perf_counter()
vectors = model.encode(texts, batch_size=int(batch))
print(json.dumps({"cpu_s": spent() - cpu, "wall_s": time.perf_counter() - wall}))
np.save(out, vectors)
"""


def ours(folder: str, texts: Sequence[str]) -> tuple[dict[str, Any], np.ndarray]:
    """Figures and vectors of our second pass."""
    from kanana_jax.applications.embedder import Embedder

    embedder = Embedder.load(folder)
    embedder(texts)
    used, start = _spent(), time.perf_counter()
    made = embedder(texts).values
    return {"cpu_s": _spent() - used, "wall_s": time.perf_counter() - start}, made


def _spent() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def theirs(python: str, folder: str, texts: Sequence[str], batch: int) -> tuple[dict[str, Any], np.ndarray]:
    """Those of sentence-transformers."""
    with tempfile.TemporaryDirectory() as place:
        asked, made = pathlib.Path(place) / "texts.json", pathlib.Path(place) / "vectors.npy"
        asked.write_text(json.dumps(texts), encoding="utf-8")
        threads = str(len(os.sched_getaffinity(0)))
        command = [python, "-c", _PEER, folder, str(asked), str(batch), str(made), threads]
        told = subprocess.run(command, capture_output=True, encoding="utf-8", check=True)
        return json.loads(told.stdout.strip().splitlines()[-1]), np.load(made)


def compared(makers: dict[str, Callable[[], tuple[dict[str, Any], np.ndarray]]], rounds: int) -> dict[str, Any]:
    """Figures of all rounds, the makers in turn; the ratio is that of the least CPU seconds."""
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in makers}
    made: dict[str, np.ndarray] = {}
    for _ in range(rounds):
        for name, make in makers.items():
            row, made[name] = make()
            rows[name].append(row)
            print(name, row, flush=True)
    difference = float(np.abs(made["ours"] - made["theirs"]).max())
    least = {name: min(row["cpu_s"] for row in own) for name, own in rows.items()}
    return {**rows, "cpu_theirs_over_ours": least["theirs"] / least["ours"], "largest_difference": difference}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", metavar="EXPORTED")
    parser.add_argument("file", metavar="FILE", help="texts, as kanana embed reads them")
    parser.add_argument("--python", default=sys.executable, metavar="FILE", help="Python of sentence-transformers")
    parser.add_argument("--limit", type=int, default=400, metavar="N", help="texts")
    parser.add_argument("--characters", type=int, default=400, metavar="N", help="of a text, at most")
    parser.add_argument("--batch", type=int, default=32, metavar="N", help="of sentence-transformers")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--output", type=pathlib.Path, required=True, metavar="FILE.json")
    options = parser.parse_args()
    from kanana_jax.data.read import records
    from kanana_jax.data.read.record import Broken

    found = (record for record in records.read(options.file, source="texts") if not isinstance(record, Broken))
    texts = [record["text"][: options.characters] for record, _ in zip(found, range(options.limit))]
    makers = {
        "ours": lambda: ours(options.folder, texts),
        "theirs": lambda: theirs(options.python, options.folder, texts, options.batch),
    }
    about = {"texts": len(texts), "characters": sum(map(len, texts)), "cores": len(os.sched_getaffinity(0))}
    results = {**about, **compared(makers, options.rounds)}
    options.output.write_text(json.dumps(results, indent=1), encoding="utf-8")
    print({key: results[key] for key in ("cpu_theirs_over_ours", "largest_difference")})


if __name__ == "__main__":
    main()
