"""Answers read from phrasings by hand, by a pattern as the field has it and by `evaluation.answers`.

python benchmarks/answers.py tests/data/evaluation
"""

import argparse
import json
import pathlib
import re

from kanana_jax.evaluation import answers

# What tasks here had before, which is also how other harnesses read letters and numbers.
LETTER = re.compile(r"(?:answer is|정답은)\s*:?\s*[\*\(\$]*([A-E])\b")
NUMBER = re.compile(r"(-?[0-9][0-9,]*\.?[0-9]*)")


def _pattern(kind: str, text: str) -> str | None:
    found = (LETTER if kind == "letters" else NUMBER).findall(text)
    return found[-1].replace(",", "").rstrip(".") if found else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=pathlib.Path, help="folder of letters.jsonl and numbers.jsonl")
    options = parser.parse_args()
    for kind, read in (("letters", answers.letter), ("numbers", answers.number)):
        rows = [json.loads(line) for line in (options.data / f"{kind}.jsonl").read_text(encoding="utf-8").splitlines()]
        for lang in dict.fromkeys(row["lang"] for row in rows):
            asked = [row for row in rows if row["lang"] == lang]
            before = sum(_pattern(kind, row["text"]) == row["answer"] for row in asked)
            now = sum(read(row["text"]) == row["answer"] for row in asked)
            print(f"{kind} {lang}: {before} → {now} of {len(asked)}")


if __name__ == "__main__":
    main()
