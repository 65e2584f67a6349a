"""The observatory held against models that it has not seen, and against the tables of observational scaling laws.

    python benchmarks/observatory.py --later swallow_eval_v1_base63_20241230.csv
    python benchmarks/observatory.py --out-of-time swallow_eval_v1_base63_20241230.csv [LATER.csv …]
    python benchmarks/observatory.py --families-left-out
    python benchmarks/observatory.py --continual-effect
    python benchmarks/observatory.py --obsscaling base_llm_benchmark_eval.csv

`--later`: a later snapshot of swallow-llm/evaluation (commit d60c0e6; its scores of the 35 models are the same).
Everything is fitted on the 35 models that come with the package and predicted for the others: PC1 and PC2 from their
compute, every task from the compute that it follows in the 35, each task from the other eighteen, and the gains of
continual models. Budgets of the others stand in `observatory_budgets.csv`, with what is assumed. `--out-of-time`: each
snapshot is predicted from those before it, beside other methods (`observatory_in_time.py`). `--families-left-out`: the
known models only, each family predicted from the others. `--continual-effect`: the mixed model of the known models, as
it is and with an effect of continual training whatever its tokens; slopes are of arcsine √score. `--obsscaling`: the
table of ryoungj/ObsScaling (commit 4d6e1e4).
"""

import argparse
import dataclasses
import json
import pathlib

import numpy as np
import observatory_gains as gains_lib
import observatory_in_time
import pandas as pd

from kanana_jax.observatory import (
    budgets,
    components,
    downstream,
    filling,
    informative,
    joint,
    mixed,
    pairs,
    scaling,
    tables,
)

BUDGETS = pathlib.Path(__file__).with_name("observatory_budgets.csv")
# Families of Ruan et al.'s 77 models; the table has grown since by the models after them.
PAPER_FAMILIES = ("Llama-2", "Llama", "Llama-3", "Qwen1.5", "Qwen", "Mistral", "Mixtral", "Yi", "Gemma", "Falcon",
                  "Phi", "Pythia", "BLOOM", "GPT-Neo/J", "OPT", "MPT", "XGLM", "CodeLlama", "StarCoder", "StarCoder2",
                  "DeepSeek-Coder")  # fmt: skip
LATER = ("mistralai/Mistral-Nemo-Base-2407", "mistralai/Mixtral-8x22B-v0.1", "Qwen/Qwen1.5-110B")


def tell(**values) -> None:
    print(json.dumps({k: round(v, 4) if isinstance(v, float) else v for k, v in values.items()}))


def later(path: pathlib.Path) -> None:
    known = tables.read(tables.shipped() / "scores.csv")
    every = pd.read_csv(path).set_index("model")[list(known.scores.columns)]
    new = every[~every.index.isin(known.scores.index)].dropna()
    fit = components.fit(known.scores, {"PC2": "NIILC", "PC3": "GSM8K"})
    measured = new.join(pd.DataFrame(fit.project(new)[:, :2], new.index, ["PC1", "PC2"]))
    old = known.scores.join(pd.DataFrame(fit.scores[:, :2], known.scores.index, ["PC1", "PC2"]))
    table = pd.read_csv(BUDGETS).set_index("model")
    table = table[table.index.isin(new.index)]
    tell(what="models", fitted=len(old), new=len(new), with_budget=len(table))
    laws(known, old, measured, table)
    left_out(known, new, fit)
    gains(known, old, measured, table)


def laws(known, old, measured, table) -> None:
    families = known.models["family"].to_numpy(str)
    rng = np.random.default_rng(0)
    found = {
        (name, lang): scaling.fit(budgets.budget(known, lang).est, old[name].to_numpy(float), families, 500, rng)
        for name in old.columns
        for lang in ("en", "ja")
    }
    inside, scaled = [], []
    for name in ("PC1", "PC2", *known.scores.columns):
        lang = {"PC1": "en", "PC2": "ja"}.get(name) or max(("en", "ja"), key=lambda c: found[name, c].r2)
        law = found[name, lang]
        x = np.log10(6 * table["params"] * table[f"{lang}_tokens_b"] * 1e9).dropna()
        y = measured.loc[x.index, name]
        middle, low, high = law.predict(x.to_numpy())
        hit = (low <= y) & (y <= high)
        rmse, naive = (float(np.sqrt(np.mean((y - m) ** 2))) for m in (middle, old[name].mean()))
        beyond = sum(law.extrapolates(v) for v in x)
        tell(
            what="from compute",
            measure=name,
            language=lang,
            n=len(x),
            covered=float(hit.mean()),
            rmse=rmse,
            of_the_mean=naive,
            bias=float(np.mean(y - middle)),
            extrapolated=beyond,
            missed=[m.rsplit("/", 1)[-1] for m in y.index[~hit]],
        )
        if not name.startswith("PC"):
            inside += list(hit)
            scaled.append(rmse / naive)
    tell(
        what="from compute, all tasks",
        cells=len(inside),
        covered=float(np.mean(inside)),
        median_rmse_ratio=float(np.median(scaled)),
    )


def left_out(known, new, fit) -> None:
    """Each task of each new model from its other tasks, by the components of the 35."""
    z = (new.to_numpy(float) - fit.mean) / fit.scale
    for rank in (1, 2, 3):
        axes = fit.loadings[:rank]
        errors = np.zeros(z.shape)
        for task in range(z.shape[1]):
            rest = np.delete(np.arange(z.shape[1]), task)
            weights = np.linalg.lstsq(axes[:, rest].T, z[:, rest].T, rcond=None)[0]
            errors[:, task] = (weights.T @ axes[:, task] - z[:, task]) * fit.scale[task]
        mean = float(np.sqrt(np.mean((z * fit.scale) ** 2)))
        tell(
            what="a task from the other 18", components=rank, rmse=float(np.sqrt(np.mean(errors**2))), of_the_mean=mean
        )


def gains(known, old, measured, table) -> None:
    together = pairs.find(known, old, "ja")
    every = pd.concat([old, measured])
    continual = table[table["base"].notna()]
    inside, count, errors, naive = 0, 0, [], []
    for name in old.columns:
        model = gains_lib.best(gains_lib.gain_models(together, name))
        for m, row in continual.iterrows():
            level, true = every.loc[row["base"], name], every.loc[m, name] - every.loc[row["base"], name]
            gain, low, high = model.predict(row["ja_added_b"], level)
            if name in ("PC1", "PC2", "NIILC", "WMT20 (en-ja)", "JCom"):
                tell(
                    what="gain",
                    measure=name,
                    model=m,
                    predicted=gain,
                    low=low,
                    high=high,
                    seen=float(true),
                    form=model.form,
                )
            if not name.startswith("PC"):
                inside, count = inside + (low <= true <= high), count + 1
                errors.append(true - gain)
                naive.append(true)
    root = lambda e: float(np.sqrt(np.mean(np.square(e))))  # noqa: E731
    tell(
        what="gains, all tasks",
        pairs=len(continual),
        cells=count,
        covered=inside / count,
        rmse=root(errors),
        of_no_gain=root(naive),
    )


def continual_effect(known: tables.Tables) -> None:
    """Slopes by family and errors on families left out, without and with a fixed effect of being a continual model."""
    scores = informative.trusted(known.scores, known.scores)
    plain = joint.every(known, scores, "ja", "en")
    design = np.column_stack([plain.design, plain.kin.continual.astype(float)])
    fitted = {}
    for task in plain.models:
        limits = (float(known.tasks.loc[task, "low"]), float(known.tasks.loc[task, "high"]))
        model = mixed.fit(design, scores[task].to_numpy(float), plain.kin, limits, mixed.questions(known, task))
        if model is not None:
            fitted[task] = model
    languages = (*plain.languages, "continual")
    more = dataclasses.replace(plain, design=design, languages=languages, models=fitted)
    slopes = {"without": joint.slopes(plain), "with": joint.slopes(more)}
    for task in fitted:
        for name, of in (("without", plain), ("with", more)):
            found = slopes[name][task]
            told = {what: [round(x, 3) for x in (slope.value, *slope.ci95)] for what, slope in found.items()}
            tell(what=f"{name} an effect of continual training", task=task, **told, left_out=of.left_out_error(task))


def obsscaling(path: pathlib.Path) -> None:
    table = pd.read_csv(path).set_index("Model")
    flops = np.log10(table["FLOPs (1E21)"].to_numpy(float) * 1e21)
    paper = table["Model Family"].isin(PAPER_FAMILIES) & ~table.index.isin(LATER)
    scores = table.iloc[:, 4:].astype(float)
    ratio, *_ = downstream.principal(scores[paper])
    tell(what="components", models=int(paper.sum()), ratio=[round(float(r), 4) for r in ratio[:3]])
    hidden = filling.hidden_cells(scores[paper], 20, np.random.default_rng(0))
    tell(what="hidden cells", **hidden.rmse)
    cutoff = np.log10(8.4e22)  # Llama 2 7B
    for task in scores.columns:
        found = downstream.held_out(scores[paper], task, flops[paper], cutoff)
        if found:
            tell(what="beyond the cut-off", **{k: v for k, v in found.items() if k not in ("weights", "bias", "floor")})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--later", type=pathlib.Path, metavar="CSV")
    parser.add_argument("--out-of-time", type=pathlib.Path, nargs="+", metavar="CSV", help="snapshots, by date")
    parser.add_argument("--budgets", type=pathlib.Path, default=BUDGETS, metavar="CSV", help="of the later models")
    parser.add_argument("--families-left-out", action="store_true", help="of the known models, from the other families")
    parser.add_argument("--continual-effect", action="store_true", help="in the mixed model, whatever the tokens")
    parser.add_argument("--obsscaling", type=pathlib.Path, metavar="CSV")
    options = parser.parse_args()
    if options.later:
        later(options.later)
    known = tables.read(tables.shipped() / "scores.csv")
    if options.families_left_out:
        for line in observatory_in_time.families_left_out(known):
            tell(**line)
    if options.continual_effect:
        continual_effect(known)
    if options.out_of_time:
        about = pd.read_csv(options.budgets).set_index("model")
        for line in observatory_in_time.lines(known, options.out_of_time, about):
            tell(**line)
    if options.obsscaling:
        obsscaling(options.obsscaling)
    of_known = options.families_left_out or options.continual_effect
    if not (options.later or options.out_of_time or of_known or options.obsscaling):
        parser.error("name a table: --later, --out-of-time or --obsscaling; or --families-left-out, --continual-effect")


if __name__ == "__main__":
    main()
