"""Canonical solutions in the sandbox: how many pass, how many cannot be judged, and how many run in a second.

python benchmarks/sandbox.py --data FOLDER [--rounds 2]

FOLDER holds `humaneval/*.jsonl` and `mbpp/*.jsonl` in their published form; either may be missing.
"""

import argparse
import json
import pathlib
import time

from kanana_jax.evaluation import code, sandbox

SETS = {"humaneval": (code.humaneval_program, "canonical_solution"), "mbpp": (code.mbpp_program, "code")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    sandbox.check()
    for name, (program, answer) in SETS.items():
        lines = [line for file in sorted((options.data / name).glob("*.jsonl")) for line in file.open(encoding="utf-8")]
        programs = [program(doc, doc[answer]) for doc in map(json.loads, lines)]
        for _ in range(options.rounds if programs else 0):
            begun = time.perf_counter()
            found = sandbox.run_all(programs)
            seconds = time.perf_counter() - begun
            passed, unjudged = sum(o.passed for o in found), sum(o.unjudged for o in found)
            print(f"{name}: {passed} of {len(found)} pass, {unjudged} not judged; {len(found) / seconds:.2f} a second")


if __name__ == "__main__":
    main()
