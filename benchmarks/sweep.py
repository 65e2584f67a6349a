"""Our own models through the observatory, and what it says beside what the sweep controls.

    python benchmarks/sweep.py runs/sweep --output runs/sweep/observatory [--per-task 200] [--seeds runs/sweep1 …]

Reads the stages of `configs/observe/sweep.py`, asks each model the questions about its world (`microworld_qa.py`; kept
in the stage as `questions.json`), and writes `scores.csv`, `models.csv` and `tasks.csv` with the study of `kanana
observe`. A score is the probability that the model gives to a byte (2 to the power of minus the bits per byte): of the
right answer after a question, and of held-out text of a kind. Accuracy of choosing among four stands beside it as
tasks of its own, for facts.

Then, task by task: the slope of the logit of the score on log10 of Korean and of English compute as the study sees it
(one language at a time, all models), and as the factorial design gives it (from-scratch models only; log10 of
parameters and of both languages' tokens at once). And the prediction of each continued model from the pairs of the
other sizes alone (`observatory_gains.py`), beside what came out. With `--seeds` (workdirs of the same config with
another seed) also their slopes, and how far a model's scores lie apart by its seed.
"""

import argparse
import csv
import dataclasses
import json
import pathlib
import sys

import numpy as np

KINDS = ("encyclopedia", "news", "textbook", "dialogue")


def sweep(config: dict, stage: str) -> dict:
    """Parameters of the design: family, base, parameters and tokens by language."""
    value = config[stage]
    base = value.get("start", "")
    mixture, tokens = value["mixture"], value["train"]["tokens"]
    parallel = mixture["ko_parallel"]
    korean = sum(v for name, v in mixture.items() if name.startswith("ko_")) - parallel / 2
    seen = {"ko": tokens * korean, "en": tokens * (1 - korean)}
    if base:
        before = sweep(config, base)
        seen = {lang: count + before["tokens"][lang] for lang, count in seen.items()}
    return {"base": base, "family": base or stage, "tokens": seen}


def questions(stage: pathlib.Path, world: int, per_task: int) -> dict[str, dict]:
    """Answers of a finished stage's model, asked once."""
    file = stage / f"questions_{per_task}.json"
    if not file.is_file():
        import microworld_qa

        from kanana_jax.data.microworld import World
        from kanana_jax.data.microworld import questions as ask
        from kanana_jax.files import write_json

        write_json(file, microworld_qa.evaluate(str(stage), ask(World.create(0, world), "stated", per_task)))
    return json.loads(file.read_text(encoding="utf-8"))


def scores_of(stage: pathlib.Path, world: int, per_task: int) -> dict[str, float]:
    """Score by task, 0 … 1."""
    found = {}
    for task, values in questions(stage, world, per_task).items():
        name = task.removeprefix("fact/").replace("/", " ")
        found[name] = 2.0 ** -values["bits"]
        if "right" in values:
            found[f"{name} accuracy"] = values["right"]
    bits = json.loads((stage / "model/model.json").read_text(encoding="utf-8"))["evaluation"]["bits_per_byte"]
    for kind in KINDS:
        for lang in ("ko", "en"):
            found[f"{kind} {lang}"] = 2.0 ** -bits[f"source/{lang}_{kind}"]
    return found


def language(task: str) -> str:
    """Of what is to be written."""
    words = task.removesuffix(" accuracy").split(" ")[-1]
    return words.split("-")[-1]


def write_tables(rows: dict[str, dict], design: dict[str, dict], output: pathlib.Path) -> None:
    tasks = list(next(iter(rows.values())))
    output.mkdir(parents=True, exist_ok=True)

    def table(name: str, columns: list[str], lines: list[list]) -> None:
        with (output / name).open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([columns, *lines])

    table("scores.csv", ["model", *tasks], [[m, *(f"{v:.6f}" for v in s.values())] for m, s in rows.items()])
    accuracy = {task: task.endswith("accuracy") for task in tasks}
    table(
        "tasks.csv",
        ["task", "language", "metric", "chance", "anchor"],
        [
            [t, language(t), "accuracy" if accuracy[t] else "probability of a byte", 0.25 if accuracy[t] else "",
             "PC2" if t == "told ko" else ""]
            for t in tasks
        ],
    )  # fmt: skip
    columns = ["model", "family", "base", "params", "tokens_b"]
    columns += [f"{lang}_{part}" for lang in ("ko", "en") for part in ("tokens_b_low", "tokens_b_est", "tokens_b_high")]
    lines = []
    for model in rows:
        d = design[model]
        seen = [f"{d['tokens'][lang] / 1e9:.9f}" for lang in ("ko", "en") for _ in range(3)]
        total = f"{sum(d['tokens'].values()) / 1e9:.9f}"
        lines.append([model, d["family"], d["base"], d["parameters"], total, *seen, "reported", "reported"])
    table("models.csv", [*columns, "ko_status", "en_status"], lines)


def logit(p: np.ndarray) -> np.ndarray:
    p = np.clip(p, 1e-4, 1 - 1e-4)
    return np.log(p / (1 - p))


def slopes(rows: dict[str, dict], design: dict[str, dict]) -> list[dict]:
    """By task: slopes a decade as observed and as controlled, with their 95% intervals."""
    import statsmodels.api as sm

    models = list(rows)
    params = np.array([design[m]["parameters"] for m in models])
    tokens = {lang: np.array([design[m]["tokens"][lang] for m in models]) for lang in ("ko", "en")}
    fresh = np.array([not design[m]["base"] for m in models])
    factors = {"size": params, "ko": tokens["ko"], "en": tokens["en"]}
    factors = {name: np.log10(values[fresh]) for name, values in factors.items() if np.ptp(values[fresh])}
    lines = []
    for task in rows[models[0]]:
        y = logit(np.array([rows[m][task] for m in models]))
        line = {"task": task}
        for lang in ("ko", "en"):
            seen = sm.OLS(y, sm.add_constant(np.log10(6 * params * tokens[lang]))).fit()
            line[f"observed {lang}"] = "{:+.2f} ({:+.2f} to {:+.2f})".format(seen.params[1], *seen.conf_int()[1])
            line[f"observed {lang} r2"] = round(seen.rsquared, 2)
        controlled = sm.OLS(y[fresh], sm.add_constant(np.stack(list(factors.values()), axis=1))).fit()
        for i, name in enumerate(factors, start=1):
            interval = controlled.conf_int()[i]
            line[f"controlled {name}"] = "{:+.2f} ({:+.2f} to {:+.2f})".format(controlled.params[i], *interval)
        lines.append(line)
    return lines


def noise(runs: list[dict[str, dict]]) -> list[dict]:
    """By task, over the models that all runs have: the standard deviation of a model's score over seeds, and of the
    models' means."""
    models = [m for m in runs[0] if all(m in run for run in runs)]
    lines = []
    for task in runs[0][models[0]]:
        scores = np.array([[run[m][task] for m in models] for run in runs])
        over_seeds, over_models = np.sqrt(scores.var(axis=0, ddof=1).mean()), scores.mean(axis=0).std(ddof=1)
        line = {"task": task, "models": len(models), "seeds": len(runs)}
        lines.append(line | {"sd of seeds": round(float(over_seeds), 4), "sd of models": round(float(over_models), 4)})
    return lines


def planned(output: pathlib.Path, local: str) -> list[dict]:
    """What the pairs of the other sizes predict for each continued model's tasks, beside what came out."""
    import observatory_gains as gains_lib

    from kanana_jax.observatory import pairs as pairs_lib
    from kanana_jax.observatory import tables

    known = tables.read(output / "scores.csv")
    found = pairs_lib.find(known, known.scores, local)
    lines = []
    for task in known.scores.columns:
        inside, errors, gains = [], [], []
        for i, family in enumerate(found.families):
            best = gains_lib.best(gains_lib.gain_models(_without(found, family), task))
            if best is not None:
                middle, low, high = best.predict(found.tokens_b[i], found.before[task].iloc[i])
                gain = found.gains[task].iloc[i]
                inside.append(low <= gain <= high)
                errors.append(middle - gain)
                gains.append(gain)
        if inside:
            error, none = (round(float(np.sqrt(np.mean(np.square(v)))), 4) for v in (errors, gains))
            mean = round(float(np.mean(gains)), 4)
            lines.append({"task": task, "pairs": len(inside), "inside 95%": round(float(np.mean(inside)), 2)})
            lines[-1] |= {"mean gain": mean, "error": error, "error of no gain": none}
    return lines


def _without(pairs, family: str):
    keep = pairs.families != family
    chosen = {
        field.name: tuple(np.array(value)[keep]) if isinstance(value, tuple) else value[keep]
        for field in dataclasses.fields(pairs)
        for value in (getattr(pairs, field.name),)
    }
    return dataclasses.replace(pairs, **chosen)


def measured(workdir: pathlib.Path, world: int, per_task: int) -> tuple[dict[str, dict], dict[str, dict]]:
    """Scores and design of a run's finished models."""
    config = json.loads((workdir / "config.json").read_text(encoding="utf-8"))["config"]
    rows, design = {}, {}
    for stage in config["stages"]:
        card = workdir / stage / "model/model.json"
        if not card.is_file():
            continue
        rows[stage] = scores_of(workdir / stage, world, per_task)
        parameters = json.loads(card.read_text(encoding="utf-8"))["parameters"]
        design[stage] = sweep(config, stage) | {"parameters": parameters}
        print(json.dumps({"model": stage, **{t: round(v, 3) for t, v in rows[stage].items()}}), flush=True)
    return rows, design


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workdir", type=pathlib.Path)
    parser.add_argument("--output", type=pathlib.Path, required=True)
    parser.add_argument("--world", type=int, default=400, help="size of the config's world")
    parser.add_argument("--per-task", type=int, default=200)
    parser.add_argument("--seeds", type=pathlib.Path, nargs="*", default=[], help="workdirs of other seeds")
    options = parser.parse_args()
    from kanana_jax.cli import main as kanana

    rows, design = measured(options.workdir, options.world, options.per_task)
    write_tables(rows, design, options.output)
    code = kanana(["observe", str(options.output / "scores.csv"), "--output", str(options.output / "study")])
    if code:
        sys.exit(code)
    for line in (*slopes(rows, design), *planned(options.output, "ko")):
        print(json.dumps(line, ensure_ascii=False))
    others = [measured(workdir, options.world, options.per_task) for workdir in options.seeds]
    for other, its_design in others:
        for line in slopes(other, its_design):
            print(json.dumps(line, ensure_ascii=False))
    for line in noise([rows, *(other for other, _ in others)]) if others else ():
        print(json.dumps(line, ensure_ascii=False))


if __name__ == "__main__":
    sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
    main()
