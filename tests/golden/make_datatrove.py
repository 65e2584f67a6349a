"""Makes `datatrove.json.gz`: what datatrove 0.10.1 decides about made-up English documents, and the words that it found.

python tests/golden/make_datatrove.py PYTHON        # an interpreter with datatrove, as benchmarks/filters.py says
"""

import gzip
import json
import pathlib
import random
import re
import sys

ROOT = pathlib.Path(__file__).parents[2]


def texts() -> list[str]:
    """Documents that break rules one by one and together: pages of the microworld, as they are and spoilt."""
    from kanana_jax.data import microworld

    rng, world, found = random.Random(0), microworld.World.create(0, 400), []
    for kind in ("encyclopedia", "news", "textbook", "dialogue", "noise", "web", "code"):
        found += [microworld.document(world, kind, "en", i)["text"] for i in range(16)]
    clean = [text for text in found[:64] if len(text.split()) > 15]
    prose = ["\n\n".join(rng.sample(clean, 8)) for _ in range(40)]
    # Sentences here are short, and datatrove counts every mark as a word without letters.
    prose += [
        re.sub(r"\d+", "many", re.sub(r"[^\w\s.]", "", re.sub(r"\.(?=\s+[A-Z])", " and", text))) for text in prose
    ]
    found = found[::4] + prose[::2]
    for i in range(120):
        text = rng.choice(prose) if i % 2 else rng.choice(prose).replace("\n\n", "\n")
        lines = text.split("\n")
        spoil = rng.randrange(12)
        if spoil == 0:
            lines = [f"- {line}" for line in lines]
        elif spoil == 1:
            lines = [f"{line} ..." for line in lines]
        elif spoil == 2:
            lines += rng.choices(lines, k=len(lines))
        elif spoil == 3:
            lines = [line.replace(" the ", " # ").replace(" in ", " # ").replace(" of ", " # ") for line in lines]
        elif spoil == 4:
            lines = " ".join(lines).split(" ")
        elif spoil == 5:
            lines.insert(
                rng.randrange(len(lines) + 1), rng.choice(["lorem ipsum dolor", "if (a) { b }", "Use JavaScript now."])
            )
        elif spoil == 6:
            lines = [" ".join(f"{w}{rng.randrange(10**8)}" for w in line.split()) for line in lines]
        elif spoil == 7:
            lines = [line.replace(".", "") for line in lines]
        elif spoil == 8:
            phrase = " ".join(rng.choice(prose).split()[: rng.randrange(2, 12)])
            lines = [f"{phrase} {line}" for line in lines for _ in range(2)]
        elif spoil == 9:
            lines = [" ".join(w for w in line.split() if w not in ("the", "of", "and", "to", "be")) for line in lines]
        elif spoil == 10:
            lines = [" ".join("12 %" if rng.random() < 0.3 else w for w in line.split()) for line in lines]
        found.append("\n".join(lines))
    return found


def main() -> None:
    sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]
    import filters

    from kanana_jax.data.arrays import characters

    documents = [characters.normalise(text).strip() for text in texts()]
    judged = filters.run_peer(sys.argv[1], {"parity": documents}, str(ROOT / "benchmarks/filters.py"))
    rows = [{"text": text, **row} for text, row in zip(documents, judged)]
    data = json.dumps(rows, ensure_ascii=False).encode()
    pathlib.Path(__file__).with_name("datatrove.json.gz").write_bytes(gzip.compress(data, 9, mtime=0))
    print(len(rows), {k: sum(r["reasons"][k] is not None for r in rows) for k in rows[0]["reasons"]})


if __name__ == "__main__":
    main()
