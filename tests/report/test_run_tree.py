"""The tree of a run's stages: branches begin where their parents ended, and tokens are added along a path alone."""

import json
import re

import pytest

from kanana_jax.report.plots import Series, lines
from kanana_jax.report.run import write_run_report
from kanana_jax.report.run_stages import Stage, Tree

STARTS = {
    "stage1": "scratch",
    "stage2": "stage1",
    "deep": "stage2",
    "cut": "stage2",
    "student": "cut",
    "own": "/models/x",
}
TOKENS = {"stage1": 4000, "stage2": 1000, "deep": 500, "student": 700, "own": 900}
BITS = {"stage1": 2.0, "stage2": 1.5, "student": 1.75}


@pytest.fixture
def workdir(tmp_path):
    config = {"name": "run", "stages": list(STARTS), "report": {"price": 3.0}}
    for name, start in STARTS.items():
        config[name] = {"kind": "prune" if name == "cut" else "pretrain", "start": start}
        if name in TOKENS:
            config[name]["train"] = {"tokens": TOKENS[name], "batch_tokens": 100}
            steps = TOKENS[name] // 100
            rows = [
                {"step": s, "tokens": 100 * s, "loss": 5.0 - s / 100, "nll": 4.0, "lr": 1e-3, "grad_norm": 1.0}
                | (
                    {"step_s": 36.0, "tokens_per_s": 9.0, "mfu": 0.1, "data_wait_s": 0.0, "eta_s": 90.0}
                    if s > 1
                    else {}
                )
                for s in range(1, steps + 1)
            ]
            if name in BITS:
                rows.append({"step": steps, "tokens": TOKENS[name], "eval": {"bits_per_byte": {"lang/ko": BITS[name]}}})
            (tmp_path / name).mkdir()
            (tmp_path / name / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = {"config": config, "command": "x", "versions": {}, "git_revision": None, "seed": 0, "started": "today"}
    (tmp_path / "config.json").write_text(json.dumps(run | {"devices": "8 × TPU v5p, mesh fsdp 8"}))
    return tmp_path


def _tree(workdir):
    config = json.loads((workdir / "config.json").read_text())["config"]
    return Tree({name: Stage(workdir / name, name, config[name], list(STARTS), {}) for name in STARTS})


def test_a_branch_begins_where_its_parent_ended(workdir):
    tree = _tree(workdir)
    assert tree.before == {"stage1": 0, "stage2": 4000, "deep": 5000, "cut": 5000, "student": 5000, "own": 0}
    curves = {series.label: series for series in tree.curves("loss")}
    assert curves["stage2"].x[-1] == pytest.approx(0.005)
    for branch in ("deep", "student"):
        assert curves[branch].x[0] == pytest.approx(0.0051)
    assert curves["own"].x[0] == pytest.approx(0.0001)


def test_the_baseline_is_the_nearest_model_that_was_evaluated(workdir):
    tree = _tree(workdir)
    assert tree.baseline(tree.stages["student"]).name == "stage2"
    assert tree.baseline(tree.stages["stage1"]) is None and tree.baseline(tree.stages["own"]) is None


def test_the_drawing_shows_who_comes_from_whom(workdir):
    lines = _tree(workdir).drawing().splitlines()
    heads = [line.partition(":")[0] for line in lines]
    assert heads == ["stage1", "└─ stage2", "   ├─ deep", "   └─ cut", "      └─ student", "own"]
    assert "from /models/x" in lines[-1] and "step 40 of 40, 90 s left" in lines[0]


def test_the_page_names_model_baseline_direction_and_cost(workdir):
    page = write_run_report(workdir).read_text()
    assert "Stage &#x27;student&#x27;" in page and "in brackets &#x27;stage2&#x27;, from which it comes" in page
    assert "bits per byte, ko (lower is better)" in page and "1.750 (1.500)" in page
    assert page.index("Held-out text</h2>") < page.index("Loss</h2>") < page.index("Models</h2>")
    # 39 steps of 36 s on 8 devices at 3 an hour
    assert f"{39 * 36 * 8 / 3600:,.3f}" in page and f"{39 * 36 * 8 / 3600 * 3:,.2f}" in page
    assert ">5,700<" in page and ">6,200<" not in page  # tokens of a path, not of all branches


def test_in_short_names_the_aligned_model(tmp_path):
    stages = {"base": ("scratch", "bits_per_byte", (2.0, 1.5)), "online": ("base", "reward", (0.25, 0.75))}
    config = {"name": "run", "stages": list(stages)}
    for name, (start, score, values) in stages.items():
        config[name] = {"kind": "pretrain" if name == "base" else "online_dpo", "start": start}
        rows = [{"step": 1, "tokens": 10, "loss": 1.0, "nll": 1.0, "lr": 1e-3, "grad_norm": 1.0}]
        for step, value in enumerate(values):
            rows.append({"step": step, "tokens": 10 * step, "eval": {score: {"lang/ko": value}}})
            rows[-1]["score"] = {"name": score, "value": value, "better": "higher"}
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = {"config": config, "command": "x", "versions": {}, "git_revision": None, "seed": 0, "started": "today"}
    (tmp_path / "config.json").write_text(json.dumps(run | {"devices": "1 × cpu"}))
    page = write_run_report(tmp_path).read_text(encoding="utf-8")
    short = page[page.index("In short</h2>") : page.index("Held-out text</h2>")]
    assert "Stage 'online'" in short.replace("&#x27;", "'") and "0.750 (0.250)" in short and "Stage 'base'" not in short


def test_ticks_of_a_nearly_constant_line_are_told_apart():
    figure = lines([Series("a", [1, 2, 3], [0.693141, 0.693147, 0.693143])], x="step", y="loss")
    ticks = [text for text in re.findall(r">([^<>]+)</text>", figure) if text.startswith("0.69")]
    assert len(ticks) > 2 and len(set(ticks)) == len(ticks)


def test_tasks_are_averaged_over_those_that_every_stage_has(workdir):
    for name, scores in (("stage1", {"a": 0.2, "b": 0.4, "c": 7.0}), ("stage2", {"a": 0.5, "b": 0.75, "d": 0.1})):
        file = workdir / name / "metrics.jsonl"
        tasks = {task: {"acc": value, "acc_stderr": 0.3} for task, value in scores.items()}
        line = {"step": 10, "tokens": 1000, "eval": {"bits_per_byte": {"lang/ko": 1.0}, "tasks": tasks}}
        file.write_text(file.read_text() + json.dumps(line) + "\n")
    page = write_run_report(workdir).read_text(encoding="utf-8")
    table = page[page.index("average of tasks") :]
    table = re.sub("<[^>]+>", " ", table[: table.index("</table>")]).split()
    assert table[table.index("stage1") + 1] == "0.300" and table[table.index("stage2") + 1] == "0.625"


def test_in_short_says_what_a_merged_model_is_made_of_and_can_do(workdir):
    """Such a model trains nothing and is evaluated by another stage."""
    run = json.loads((workdir / "config.json").read_text())
    run["config"]["stages"] += ["merged", "asked"]
    run["config"]["merged"] = {"kind": "merge", "start": "stage2", "merge": {"models": ["stage2", "deep", "student"]}}
    run["config"]["asked"] = {"kind": "evaluate", "start": "merged", "models": ["deep"]}
    (workdir / "config.json").write_text(json.dumps(run))
    shape = dict.fromkeys(("num_layers", "embed_dim", "mlp_dim", "num_heads", "num_kv_heads"), 1)
    flops = {"train": 0.0, "teacher": 0.0, "calibration": 0.0}
    card = {"architecture": shape, "parameters": 10, "tokens": 0, "flops": flops, "parent": None}
    (workdir / "merged/model").mkdir(parents=True)
    (workdir / "merged/model/model.json").write_text(json.dumps(card))
    scores = {"merged": {"a": (0.5, 0.03), "b": (0.75, 0.04)}, "deep": {"a": (0.25, 0.0), "b": (0.5, 0.0)}}
    models = {
        name: {"results": {task: {"acc": value, "acc_stderr": error} for task, (value, error) in own.items()}}
        for name, own in scores.items()
    }
    (workdir / "asked").mkdir()
    (workdir / "asked/evaluation.json").write_text(json.dumps({"models": models}))
    page = write_run_report(workdir).read_text(encoding="utf-8")
    short = re.sub("<[^>]+>", " ", page[page.index("In short</h2>") : page.index("Which stage starts from which")])
    row = next(line for line in short.split("merged/model")[0].split("</tr>") if "stage2; with deep, student" in line)
    assert "0.625 ± 0.025" in row  # √(0.03² + 0.04²) / 2
    assert "0.375 ± 0.000" in short and "the mean of a, b" in short
