"""What is replaced as personal data in texts: every distinct one, with what stands around it, to be read by eye.

    python benchmarks/personal_data.py --input 'data/ko/*.jsonl.gz' 'data/ja/*.jsonl.gz' [--kinds ip phone]

Prints a line of JSON per kind: how many were replaced, in how many distinct forms, and with --show the forms. The last
line has characters per second of the process's own time, the best of --repeat runs.
"""

import argparse
import collections
import json
import pathlib
import sys
import time


def main() -> None:
    from kanana_jax.data.arrays.characters import normalise
    from kanana_jax.data.filters import pii
    from kanana_jax.data.read import records

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", nargs="+", required=True, metavar="PATH")
    parser.add_argument("--kinds", nargs="+", default=list(pii.KINDS), choices=pii.KINDS)
    parser.add_argument("--show", action="store_true", help="print each distinct form with its context")
    parser.add_argument("--context", type=int, default=30, metavar="CHARACTERS")
    parser.add_argument("--repeat", type=int, default=1)
    options = parser.parse_args()
    items = (item for path in options.input for item in records.read(path, source=""))
    texts = [normalise(item["text"]) for item in items if isinstance(item, dict)]
    forms: dict[str, collections.Counter] = {kind: collections.Counter() for kind in options.kinds}
    seconds = []
    for _ in range(options.repeat):
        start = time.process_time()
        found = [pii.find(text) for text in texts]
        seconds.append(time.process_time() - start)
    for text, places in zip(texts, found):
        for start, end, kind in places:
            if kind in forms:
                around = (text[max(0, start - options.context) : start], text[start:end])
                forms[kind][(*around, text[end : end + options.context])] += 1
    for kind, counted in forms.items():
        print(json.dumps({"kind": kind, "replaced": counted.total(), "distinct": len({form[1] for form in counted})}))
        if options.show:
            for form, n in sorted(counted.items()):
                print(
                    json.dumps(
                        {"kind": kind, "n": n, "before": form[0], "datum": form[1], "after": form[2]},
                        ensure_ascii=False,
                    )
                )
    characters = sum(map(len, texts))
    print(json.dumps({"characters": characters, "characters_per_s": round(characters / min(seconds))}))


if __name__ == "__main__":
    sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
    main()
