"""A real model that learns function calls with adapters: before, after English ones, and after Korean ones.

    python benchmarks/calls_real.py MODEL DATA PLACE [--sets NAME …] [--limit 20] [--parts 1] [--list]

MODEL is a Hugging Face folder with a chat template, DATA a folder with the files of all sets (FunctionChat-Bench's and
BFCL's, docs/evaluation.md), PLACE a folder for the models. Each part adds a line to `benchmarks/calls_real.jsonl`; the
same command resumes:

    base         the model as it is
    english      LoRA on English conversations of the embedded world (`configs/calls.py`)
    korean       the same on Korean ones, with a fifth of the English ones, from `english`

Every part is asked `--limit` turns of each set, and of unread conversations of the embedded world in both languages,
under the grammar and free. Shares of right turns, of turns with a call that cannot be parsed (`broken`), and of turns
that ran out of tokens (`cut`).
"""

import argparse
import datetime
import json
import pathlib
from typing import Any

ROOT = pathlib.Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks/calls_real.jsonl"
PARTS = ("base", "english", "korean")
RANK, ALPHA, RATE = 16, 32, 5e-4
SEQ_LEN, BATCH_TOKENS, STEPS = 512, 4096, 20
BATCH = 8  # prompts that are answered at once
SETS = ("functionchat_singlecall", "functionchat_calldecision", "bfcl_simple_python", "bfcl_irrelevance")
PEOPLE, _UNSEEN = 4000, 100_000  # of the embedded world; the first conversation that no run reads


def asked(data: pathlib.Path, sets: list[str], limit: int) -> dict[str, list[Any]]:
    """Turns by set: every k-th, so that they are spread over the set."""
    from kanana_jax.data.microworld import World, document
    from kanana_jax.evaluation import function_calls

    found = {}
    for name in sets:
        items = function_calls.items(name, data)
        found[name] = items[:: max(1, len(items) // limit)][:limit]
    world = World.create(seed=0, size=PEOPLE)
    for lang in ("ko", "en"):
        records = [document(world, "calls", lang, _UNSEEN + i) for i in range(limit)]
        found[f"microworld_{lang}"] = [function_calls.of_conversation(record, lang) for record in records]
    return found


def measure(model: str, turns: dict[str, list[Any]]) -> dict[str, float]:
    """`SET.WAY` → share of right turns, with `SET.WAY.broken` and `SET.WAY.cut`."""
    from kanana_jax.applications import call_benchmarks
    from kanana_jax.inference.session import Session

    session, found = Session.load(model), {}
    for name, items in turns.items():
        for way, constrained in (("grammar", True), ("free", False)):
            made = call_benchmarks.evaluate(session, {name: items}, batch_size=BATCH, constrained=constrained)
            replies = made["samples"]
            found[f"{name}.{way}"] = sum(made["documents"][name]["accuracy"]) / len(replies)
            found[f"{name}.{way}.broken"] = sum(bool(row["broken"]) for row in replies) / len(replies)
            found[f"{name}.{way}.cut"] = sum(bool(row["cut"]) for row in replies) / len(replies)
            print(f"{model}: {name}, {way}: {found[f'{name}.{way}']:.2f}", flush=True)
    return {name: round(value, 4) for name, value in found.items()}


def train(part: str, model: str, place: pathlib.Path) -> str:
    """Runs a stage of `configs/calls.py` with adapters; returns the folder of its model."""
    import jax
    from kanana_jax.configs import calls

    from kanana_jax.recipe import run as recipe

    config = calls.get_config(model)
    config.runtime.compute_dtype = "float32"
    config.data.update(lanes=1, packing="best_fit")
    config.stages = (part,)
    for source in config.sources.values():
        source.path = source.path.replace("count=20000", "count=1000")
    section = config[part]
    section.start = model if part == "english" else str(place / "english/english")
    section.lora = dict(rank=RANK, alpha=ALPHA)
    section.train.update(batch_tokens=BATCH_TOKENS, seq_len=SEQ_LEN, tokens=STEPS * BATCH_TOKENS, log_every=1)
    section.train.eval_every = STEPS
    section.train.checkpoint = dict(every=5, keep_last=1, keep_best=0)
    section.train.optimizer.update(learning_rate=RATE, schedule=dict(kind="cosine", warmup_steps=4, final=0.1))
    recipe.run(config, place / part, devices=jax.devices()[:1])
    return str(place / part / part)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("model", "data", "place"):
        parser.add_argument(name, nargs="?", default="")
    parser.add_argument("--sets", nargs="+", default=list(SETS))
    parser.add_argument("--limit", type=int, default=20, help="turns of each set")
    parser.add_argument("--parts", type=int, default=0, help="at most so many; 0: all")
    parser.add_argument("--list", action="store_true")
    options = parser.parse_args()
    lines = RESULTS.read_text(encoding="utf-8").splitlines() if RESULTS.is_file() else []
    known = {json.loads(line)["part"] for line in lines}
    left = [part for part in PARTS if part not in known]
    if options.list:
        print("\n".join(left))
        return
    if not options.place:
        parser.error("MODEL, DATA and PLACE are needed")
    place = pathlib.Path(options.place)
    turns = asked(pathlib.Path(options.data), options.sets, options.limit)
    for part in left[: options.parts or None]:
        figures = measure(options.model if part == "base" else train(part, options.model, place), turns)
        today = datetime.datetime.now(datetime.UTC).date().isoformat()
        with RESULTS.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"part": part, "turns": options.limit, "figures": figures, "date": today}) + "\n")
        print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    main()
