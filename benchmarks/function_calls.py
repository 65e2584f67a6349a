"""Function calls under a grammar: random schemas, all of whose calls must fit, and what a mask costs.

    python benchmarks/function_calls.py --schemas 1000 --output calls.json
    python benchmarks/function_calls.py --schemas 100 --tokenizer MODEL --output calls.json

Writes the number of schemas, of turns that fit, of turns that did not end within 3,000 tokens, of schemas that a format
refuses, and microseconds of a mask (median, 99th percentile) over all steps.
"""

import argparse
import collections
import json
import pathlib
import sys
import tempfile
import time
from typing import Any

import numpy as np


def main() -> None:
    sys.path[:0] = [str(pathlib.Path(__file__).parents[1]), str(pathlib.Path(__file__).parents[1] / "tests")]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--schemas", type=int, default=1000, help="per format")
    parser.add_argument("--tokenizer", help="a folder; default: 300 tokens, trained here")
    parser.add_argument("--output", type=pathlib.Path, required=True)
    options = parser.parse_args()

    import call_fuzz
    import hypothesis
    import jsonschema

    from kanana_jax.applications import call_grammar
    from kanana_jax.data.tokens import byte_level, calls
    from kanana_jax.data.tokens.tokenizer import load_tokenizer
    from kanana_jax.errors import UserError
    from kanana_jax.inference.constrained import Constraint, Vocabulary

    with tempfile.TemporaryDirectory() as name:
        if options.tokenizer is None:
            text = '가람시의 도서관 <tool_call>\n{"name": "get", "arguments": {"city": "서울"}}\n</tool_call>'
            for file, data in byte_level.train([text] * 4, 300).items():
                (pathlib.Path(name) / file).write_bytes(data)
        tokenizer = load_tokenizer(options.tokenizer or name)
        begun = time.perf_counter()
        vocabulary = Vocabulary.of(tokenizer, tokenizer.end_ids)
        read = time.perf_counter() - begun
    times: list[float] = []

    class Timed(Constraint):
        def allowed(self, words: np.ndarray) -> None:
            begun = time.perf_counter()
            super().allowed(words)
            times.append(time.perf_counter() - begun)

    def judge(form: calls.Name, counts: collections.Counter[str]) -> None:
        @hypothesis.settings(max_examples=options.schemas, deadline=None, derandomize=True, database=None)
        @hypothesis.given(schema=call_fuzz.SCHEMAS, seed=hypothesis.strategies.integers(0, 2**32 - 1))
        def judged(schema, seed):
            counts["schemas"] += 1
            try:
                grammar = call_grammar.grammar(form, {"get": schema}, [], required=True, parallel=False)
            except UserError:
                counts["refused"] += 1
                return
            constraint = Timed(vocabulary, grammar, np.asarray([1], np.int32))
            ids = call_fuzz.write(constraint, vocabulary, seed)
            if ids is None:
                counts["endless"] += 1
                return
            reply = calls.read(tokenizer.decode(ids), form, {"get": schema})
            jsonschema.validate(dict(reply.calls[0].arguments), schema)
            counts["valid"] += 1

        judged()

    results: dict[str, Any] = {}
    for form in ("llama3", "hermes", "qwen-xml"):
        counts: collections.Counter[str] = collections.Counter()
        times.clear()
        if options.schemas:
            judge(form, counts)
        spent = np.asarray(times or [0.0]) * 1e6
        mask = {"median": float(np.median(spent)), "p99": float(np.quantile(spent, 0.99)), "steps": len(times)}
        results[form] = {**counts, "mask_us": mask}
        print(form, results[form], flush=True)
    results |= {"vocabulary": vocabulary.size, "read_s": read}
    options.output.write_text(json.dumps(results, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
