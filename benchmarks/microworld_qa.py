"""Questions about the microworld, put to every arm of an ablation.

    python benchmarks/microworld_qa.py runs/filtering [--per-task 200] [--against ARM]

For each task: accuracy of choosing the likeliest of four answers (chance 0.25; the log-likelihood of a choice is
divided by its bytes), and bits per byte of the right answer after the question, which moves long before accuracy does.
Means over
seeds with 95% t-intervals; differences to `--against` are paired by seed.
"""

import argparse
import functools
import json
import math
import pathlib
import sys


@functools.lru_cache(4)
def _forward(model):
    import jax
    import jax.numpy as jnp

    @jax.jit
    def run(params, tokens):  # [B, T] -> log p of each token after the first, [B, T - 1]
        module = model.bind(params)
        hidden = module(tokens[:, :-1])
        logits = jnp.einsum("btd,vd->btv", hidden, module.unembedding_matrix()).astype(jnp.float32)
        return jnp.take_along_axis(jax.nn.log_softmax(logits), tokens[:, 1:, None], axis=-1)[..., 0]

    return run


def scores(session, pairs: list[tuple[str, str]], batch: int = 64) -> list[float]:
    """log2 p(answer | question) of each pair."""
    import numpy as np

    tokenizer, rows = session.tokenizer, []
    for question, answer in pairs:
        prompt = [*tokenizer.prefix, *tokenizer.encode(question)]
        whole = [*tokenizer.prefix, *tokenizer.encode(f"{question} {answer}")]
        same = next((i for i, (a, b) in enumerate(zip(prompt, whole)) if a != b), len(prompt))
        rows.append((same, whole))
    length = max(len(whole) for _, whole in rows)
    out = []
    run = _forward(session.model)
    for i in range(0, len(rows), batch):
        some = rows[i : i + batch]
        tokens = np.full((batch, length), tokenizer.eos_id, np.int32)
        for j, (_, whole) in enumerate(some):
            tokens[j, : len(whole)] = whole
        found = np.asarray(run(session.params, tokens))
        out += [float(found[j, same - 1 : len(whole) - 1].sum()) / math.log(2) for j, (same, whole) in enumerate(some)]
    return out


def evaluate(model: str, records: list[dict]) -> dict[str, dict[str, float]]:
    """task → accuracy (where there are choices) and bits per byte of the answer."""
    from kanana_jax.inference.session import Session

    session = Session.load(model)
    pairs, places = [], []
    for record in records:
        choices = record["choices"] or [record["answer"]]
        places.append((len(pairs), choices))
        pairs += [(record["question"], choice) for choice in choices]
    found, tasks = scores(session, pairs), {}
    for record, (at, choices) in zip(records, places):
        per_byte = [found[at + i] / len(choice.encode()) for i, choice in enumerate(choices)]
        right = choices.index(record["answer"])
        task = tasks.setdefault(record["task"], {"bits": [], "right": []})
        task["bits"].append(-per_byte[right])
        if len(choices) > 1:
            task["right"].append(per_byte[right] == max(per_byte))
    mean = {task: {k: sum(v) / len(v) for k, v in values.items() if v} for task, values in tasks.items()}
    return mean


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--per-task", type=int, default=200)
    parser.add_argument("--against", default="", metavar="ARM")
    options = parser.parse_args()
    from arms import interval

    from kanana_jax.data.microworld import World, questions

    records = questions(World.create(0, 4000), "train", options.per_task)
    arms: dict[str, dict[str, dict]] = {}
    for workdir in sorted(options.folder.iterdir()):
        arm, _, seed = workdir.name.rpartition("-")
        if (workdir / "stage1/model/model.json").is_file():
            arms.setdefault(arm, {})[seed] = evaluate(str(workdir / "stage1"), records)
    base = arms[options.against or next(iter(arms))]
    for task in next(iter(base.values())):
        for arm, seeds in arms.items():
            line = {"task": task, "arm": arm, "seeds": len(seeds)}
            for metric in next(iter(seeds.values()))[task]:
                mean, half = interval([found[task][metric] for found in seeds.values()])
                both = sorted(seeds.keys() & base.keys())
                change, change_half = interval([seeds[s][task][metric] - base[s][task][metric] for s in both])
                line[metric] = f"{mean:.3f} ± {half:.3f} ({change:+.3f} ± {change_half:.3f})"
            print(json.dumps(line, ensure_ascii=False), flush=True)


if __name__ == "__main__":
    sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
    main()
