"""Padding, cut documents and speed of packing in order and by best fit.

    python benchmarks/packing.py TOKENIZER FILE [FILE …] [--mb 5] [--rows 256,2048,8192] [--windows 16,64,256]

TOKENIZER is a folder. One JSON line per packing: the share of places that are padding, parts per document and the least
possible (best fit packs whole windows only, so that the last documents are missing), MB of text per second of packing.
"""

import argparse
import json
import pathlib
import sys
import time


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tokenizer")
    parser.add_argument("files", nargs="+")
    parser.add_argument("--mb", type=float, default=5.0, help="of each file")
    parser.add_argument("--rows", default="256,2048,8192", help="tokens of a row")
    parser.add_argument("--windows", default="16,64,256", help="rows of a window")
    options = parser.parse_args()

    import numpy as np

    from kanana_jax.data.read import records
    from kanana_jax.data.stream.best_fit import BestFitPacker
    from kanana_jax.data.stream.encode import TextEncoder
    from kanana_jax.data.stream.packing import Packer
    from kanana_jax.data.tokens.tokenizer import load_tokenizer

    encoder, documents, size = TextEncoder(load_tokenizer(options.tokenizer)), [], 0
    for file in options.files:
        own = 0
        for record in records.read(file, source=""):
            if isinstance(record, dict):
                documents.append(encoder(record))
                own += len(record["text"].encode())
            if own > options.mb * 1e6:
                break
        size += own
    documents = [documents[i] for i in np.random.default_rng(0).permutation(len(documents))]
    lengths = np.array([len(examples[0].tokens) for examples in documents])
    for T in map(int, options.rows.split(",")):
        for window in (0, *map(int, options.windows.split(","))):
            packer = BestFitPacker(T, False, window) if window else Packer(T)
            began, taken = time.process_time(), []
            for key, examples in enumerate(documents):
                packer.add(key, examples)
                while packer.ready():
                    taken.append(packer.take())
            seconds = time.process_time() - began
            if not taken:
                continue
            parts = sum(int(row.segment_ids.max()) for row in taken)
            least = sum(max(-(-(n - 1) // T), 1) for n in lengths)
            print(
                json.dumps(
                    {
                        "row": T,
                        "window_rows": window,
                        "documents": len(documents),
                        "longer_than_a_row": round(float((lengths > T + 1).mean()), 3),
                        "rows": len(taken),
                        "padding": round(float(np.mean([row.segment_ids == 0 for row in taken])), 4),
                        "parts_per_document": round(parts / len(documents), 3),
                        "least": round(least / len(documents), 3),
                        "mb_per_s": round(size / 1e6 / seconds, 1),
                    }
                ),
                flush=True,
            )


if __name__ == "__main__":
    sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
    main()
