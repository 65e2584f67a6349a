"""Function calls under a grammar: random schemas, all of whose calls must fit, and what a mask costs.

    python benchmarks/function_calls.py --schemas 1000 --output calls.json
    python benchmarks/function_calls.py --schemas 100 --tokenizer FOLDER --output calls.json

Writes the number of schemas, of turns that fit, of turns that did not end within 3,000 tokens, of schemas that a format
refuses, and microseconds of a mask (median, 99th percentile) over all steps. Then milliseconds per token of a random
model of 4 layers with this vocabulary that writes a list of numbers: `free`, in one program; `asked`, by a mask of all
tokens, which is the cost of asking the host at every token; `grammar`, by the grammar's.
"""

import argparse
import collections
import json
import pathlib
import sys
import tempfile
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from kanana_jax.inference.constrained import Vocabulary
    from kanana_jax.inference.generate import Allowed

TOKENS = 128
LIST = {
    "type": "object",
    "properties": {"n": {"type": "array", "items": {"type": "integer"}, "minItems": 4 * TOKENS}},
    "required": ["n"],
}


def _per_token(vocabulary: "Vocabulary", rows: int) -> dict[str, float]:
    """Milliseconds per step of `TOKENS` of each way of writing, the better of two, compiled before."""
    import jax

    from kanana_jax.applications import call_grammar
    from kanana_jax.data.tokens import calls
    from kanana_jax.inference.constrained import Constraint, followed
    from kanana_jax.inference.generate import generate
    from kanana_jax.models import presets
    from kanana_jax.models.architecture import Runtime
    from kanana_jax.models.model import Model
    from kanana_jax.models.transformer import init_params

    shape = presets.tiny(vocabulary.size, embed_dim=256, mlp_dim=768, num_layers=4, num_heads=4, num_kv_heads=2)
    params = init_params(shape, Runtime(), jax.random.key(0))
    prompts = [np.arange(1, 33, dtype=np.int32)] * rows
    grammar = call_grammar.grammar(
        "hermes", {"get": LIST}, vocabulary.symbols(calls.MARKS), required=True, parallel=False
    )
    words = np.full((rows, -(-vocabulary.size // 32)), -1, np.int32)
    ways: dict[str, Callable[[], Allowed | None]] = {
        "free": lambda: None,
        "asked": lambda: lambda last: words,
        "grammar": lambda: followed([Constraint(vocabulary, grammar, each) for each in prompts], vocabulary.size),
    }
    found = {}
    for way, made in ways.items():
        times = []
        for _ in range(3):
            allowed = made()
            begun = time.perf_counter()
            new = generate(params, Model(shape, Runtime()), prompts, max_new_tokens=TOKENS, allowed=allowed)
            times.append((time.perf_counter() - begun) / TOKENS * 1e3)
            assert all(len(each) == TOKENS for each in new)
        found[way] = min(times[1:])
    return found


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
    symbols = vocabulary.symbols(calls.MARKS)
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
                grammar = call_grammar.grammar(form, {"get": schema}, symbols, required=True, parallel=False)
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
    results["ms_per_token"] = {f"{rows} rows": _per_token(vocabulary, rows) for rows in (1, 8)}
    print(results["ms_per_token"])
    options.output.write_text(json.dumps(results, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
