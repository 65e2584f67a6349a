"""A real model aligned with adapters: what it learns, and what it forgets.

    python benchmarks/align_real.py MODEL CHAT TEXT PLACE [--parts 1] [--list]

MODEL is a Hugging Face folder with a chat template, CHAT question and answer pairs in Korean (`q`, `a`: songys'
Chatbot_data, MIT), TEXT English texts (`text`), PLACE a folder for what is made. Parts:

    base         the model as it is
    sft          LoRA on CHAT
    sft_replay   the same with a quarter of TEXT
    pairs        pairs of the model's own answers to English sums and formats, by their verifiers
    dpo          LoRA on these pairs

A finished part adds a line to `benchmarks/align_real.jsonl`; the same command resumes. Each model answers 200 held-out
items (sums of one and two digits, JSON with given keys, a number of words), whose verdicts are in the line, so that
parts can be compared item by item; bits per byte of held-out answers of CHAT and of held-out TEXT.
`python benchmarks/align_real.py --compare` prints paired differences to `base` with 95% intervals.
"""

import argparse
import datetime
import gzip
import json
import math
import pathlib
import random
import subprocess
import sys
from typing import Any

ROOT = pathlib.Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks/align_real.jsonl"
PARTS = ("base", "sft", "sft_replay", "pairs", "dpo")
RANK, ALPHA, SEQ_LEN, BATCH_TOKENS, STEPS = 16, 32, 512, 4096, 16
TRAINED, HELD, ITEMS = 1500, 100, 50  # conversations; of CHAT and TEXT; items of each kind
KINDS = ("one_digit", "two_digits", "json", "words")
NEW, SAMPLES = 64, 8  # tokens of an answer; answers to each prompt of `pairs`


def item(kind: str, rng: random.Random) -> dict[str, Any]:
    """A prompt with its verifier; `held` marks those that no pair is made of."""
    if "digit" in kind:
        low, high = (1, 9) if kind == "one_digit" else (10, 99)
        a, b = rng.randint(low, high), rng.randint(low, high)
        prompt, verifier, answer, key = f"What is {a} + {b}?", "number", str(a + b), a * 100 + b
    elif kind == "json":
        names = ("name", "city", "colour", "animal", "price", "country", "year", "food", "title", "author")
        keys = rng.sample(names, 2)
        prompt = f"Write a JSON object with the keys {keys[0]} and {keys[1]}. Write nothing else."
        verifier, answer, key = "json", keys, names.index(keys[0]) * 10 + names.index(keys[1])
    else:
        topics = ("the sea", "winter", "bread", "music", "a river", "trains", "the moon", "coffee", "rain", "books")
        topic, count = rng.choice(topics), rng.randint(3, 9)
        prompt = f"Write about {topic} in exactly {count} words."
        verifier, answer = "length", {"min": count, "max": count, "unit": "words"}
        key = topics.index(topic) * 10 + count
    row = {"prompt": prompt, "verifier": verifier, "answer": answer, "kind": kind}
    return row | {"held": random.Random(key).random() < 0.3}


def items(held: bool, each: int) -> list[dict[str, Any]]:
    """Prompts of all kinds; of sums and words there are few, so that held-out prompts may repeat."""
    rng, found = random.Random(int(held)), []
    for kind in KINDS:
        made = (item(kind, rng) for _ in range(1_000_000))
        some = [row for row, _ in zip((row for row in made if row["held"] == held), range(each))]
        found += [row | {"id": f"{kind}-{i}"} for i, row in enumerate(some)]
    return found


def lines_of(path: pathlib.Path) -> list[dict[str, Any]]:
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return [json.loads(line) for line in data.decode("utf-8").split("\n") if line]


def write(path: pathlib.Path, rows: list[dict[str, Any]]) -> pathlib.Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def prepare(chat: pathlib.Path, text: pathlib.Path, place: pathlib.Path) -> None:
    """Writes `chat.jsonl`, `text/text.jsonl`, their held-out parts, and `prompts.jsonl`."""
    talks = [
        {"messages": [{"role": "user", "content": row["q"]}, {"role": "assistant", "content": row["a"]}]}
        for row in lines_of(chat)
    ]
    texts = [{"text": row["text"]} for row in lines_of(text)]
    random.Random(0).shuffle(talks)
    random.Random(0).shuffle(texts)
    write(place / "chat.jsonl", talks[HELD : HELD + TRAINED])
    write(place / "chat_held.jsonl", talks[:HELD])
    write(place / "text.jsonl", texts[HELD:])
    write(place / "text_held.jsonl", texts[:HELD])
    write(place / "prompts.jsonl", items(False, 100))


def measure(model: str, place: pathlib.Path) -> dict[str, Any]:
    """The figures of a model: verdicts of the held-out items, accuracy by kind, bits per byte."""
    import jax
    import numpy as np

    from kanana_jax.data.tokens import chat
    from kanana_jax.evaluation.verifiers import RECORD, Question, verify
    from kanana_jax.inference.sampling import SamplingConfig
    from kanana_jax.inference.scoring import score
    from kanana_jax.inference.session import Session

    session = Session.load(model)
    encode = session.tokenizer.encode
    rows = items(True, ITEMS)
    asked = []
    for row in rows:
        ids = chat.encode_chat(session.tokenizer, [{"role": "user", "content": row["prompt"]}])
        asked.append(Question(row["id"], ids, row["prompt"], "en", row["verifier"], row["answer"]))
    written = session.continue_ids([q.ids for q in asked], NEW, SamplingConfig(temperature=0.0), 0)
    right = verify({RECORD: 1.0})(asked, [session.text_of(q.ids, ids) for q, ids in zip(asked, written)])
    requests, sizes = [], []
    for row in lines_of(place / "chat_held.jsonl"):
        prompt = chat.encode_chat(session.tokenizer, row["messages"][:1])
        answer = row["messages"][1]["content"]
        requests.append((prompt, np.asarray(encode(answer), np.int32)))
        sizes.append(len(answer.encode()))
    for row in lines_of(place / "text_held.jsonl"):
        text = row["text"][:1500]
        ids = np.asarray(encode(text), np.int32)
        requests.append((ids[:1], ids[1:]))
        sizes.append(len(text.encode()))
    with jax.set_mesh(session.mesh):
        nats = -np.array([s.log_likelihood for s in score(session.params, session.model, requests, batch_size=4)])
    bits = nats / math.log(2)
    figures = {kind: float(np.mean([r for r, row in zip(right, rows) if row["kind"] == kind])) for kind in KINDS}
    figures |= {
        "accuracy": float(right.mean()),
        "tokens": float(np.mean([len(ids) for ids in written])),
        "chat_bits_per_byte": float(bits[:HELD].sum() / sum(sizes[:HELD])),
        "text_bits_per_byte": float(bits[HELD:].sum() / sum(sizes[HELD:])),
    }
    return {"figures": {k: round(v, 5) for k, v in figures.items()}, "right": "".join("01"[int(r)] for r in right)}


def train(part: str, model: str, place: pathlib.Path) -> str:
    """Runs a stage with adapters; returns the folder of its model."""
    import jax
    from kanana_jax.configs import dpo, sft

    from kanana_jax.recipe import run as recipe

    kind, name = ("dpo", "pairs") if part == "dpo" else ("sft", "chat")
    config = (dpo if part == "dpo" else sft).get_config(f"{model},{place / f'{name}.jsonl'}")
    config.filters = {name: {}}
    config.runtime.compute_dtype = "float32"
    config.data.update(lanes=1, packing="best_fit")
    section = config[kind]
    section.lora = dict(rank=RANK, alpha=ALPHA)
    if part == "sft_replay":
        config.sources.text = dict(path=str(place / "text.jsonl"), lang="en")
        section.mixture, section.replay = dict(chat=0.75, text=0.25), True
    section.train.update(batch_tokens=BATCH_TOKENS, seq_len=SEQ_LEN, tokens=STEPS * BATCH_TOKENS, log_every=1)
    section.train.eval_every = STEPS // 2
    section.train.checkpoint = dict(every=4, keep_last=1, keep_best=0)
    rate = 1e-4 if part == "dpo" else 2e-4
    section.train.optimizer.update(learning_rate=rate, schedule=dict(kind="cosine", warmup_steps=4, final=0.1))
    recipe.run(config, place / part, devices=jax.devices()[:1])
    return str(place / part / kind)


def make_pairs(model: str, place: pathlib.Path) -> dict[str, Any]:
    """Writes `pairs.jsonl`: of each prompt's sampled answers right ones and wrong ones, where there are both."""
    pairs = place / "pairs.jsonl"
    command = ["best-of-n", model, "--prompts", str(place / "prompts.jsonl"), "--n", str(SAMPLES), "--max-new-tokens"]
    command += [str(NEW), "--output", str(place / "samples.json"), "--pairs", str(pairs), "--pairs-per-prompt", "2"]
    subprocess.run([sys.executable, "-m", "kanana_jax", *command], check=True)
    kinds = [row["id"].rpartition("-")[0] for row in lines_of(pairs)]
    return {"figures": {"pairs": len(kinds), **{kind: kinds.count(kind) for kind in KINDS}}}


def compare() -> None:
    """Prints the share of items that a part answers rightly more than `base`, paired."""
    import numpy as np

    rows = {row["part"]: row for row in lines_of(RESULTS)}
    verdicts = {part: np.array([int(c) for c in row["right"]]) for part, row in rows.items() if "right" in row}
    for part, right in verdicts.items():
        apart = right - verdicts["base"]
        half = 1.96 * apart.std(ddof=1) / math.sqrt(len(apart))
        line = {"part": part, "minus base": round(float(apart.mean()), 4), "ci95": round(float(half), 4)}
        print(json.dumps(line | rows[part]["figures"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("model", "chat", "text", "place"):
        parser.add_argument(name, nargs="?", default="")
    parser.add_argument("--parts", type=int, default=0, help="at most so many; 0: all")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--compare", action="store_true")
    options = parser.parse_args()
    if options.compare:
        compare()
        return
    known = {row["part"] for row in lines_of(RESULTS)} if RESULTS.is_file() else set()
    left = [part for part in PARTS if part not in known]
    if options.list:
        print("\n".join(left))
        return
    if not options.place:
        parser.error("MODEL, CHAT, TEXT and PLACE are needed")
    place = pathlib.Path(options.place)
    if not (place / "prompts.jsonl").is_file():
        prepare(pathlib.Path(options.chat), pathlib.Path(options.text), place)
    for part in left[: options.parts or None]:
        if part == "pairs":
            found = make_pairs(options.model, place)
        else:
            found = measure(options.model if part == "base" else train(part, options.model, place), place)
        today = datetime.datetime.now(datetime.UTC).date().isoformat()
        with RESULTS.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"part": part, **found, "date": today}) + "\n")
        print(json.dumps(found["figures"]), flush=True)


if __name__ == "__main__":
    main()
