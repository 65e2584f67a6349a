"""`kanana run --dry-run`: says what would run and all that would stop it, and writes nothing."""

import json

import jax
import pytest
from conftest import ROOT

from kanana_jax.cli import dry_run, main
from kanana_jax.plan import estimate, fit, request
from kanana_jax.recipe import config as config_lib
from kanana_jax.recipe import run as recipe


def _main(tmp_path, capsys, *overrides):
    arguments = ["run", "--config", f"{ROOT}/configs/tiny.py:test", "--workdir", str(tmp_path / "w"), "--dry-run"]
    code = main([*arguments, *(f"--config.{override}" for override in overrides)])
    told = capsys.readouterr()
    return code, told.out, told.err.splitlines()


def test_says_what_would_run_and_writes_nothing(tmp_path, capsys):
    code, out, errors = _main(tmp_path, capsys, "stage1.train.tokens=10240")
    assert code == 0 and not errors and not (tmp_path / "w").exists()
    rows = {line.split()[0]: line.split() for line in out.splitlines() if line.startswith("  ")}
    assert rows["stage1"][1:6] == ["pretrain", "to", "run", "10,240", "20"] and rows["stage1"][6] == "512"
    assert rows["student"][1:3] == ["distill", "pruned"] and "microworld://news/ko" in rows["ko_news"][-1]
    assert "mesh        data 1 × fsdp 8 × sequence 1 × tensor 1" in out


def test_every_mistake_is_told(tmp_path, capsys):
    empty = tmp_path / "empty.txt"
    empty.write_text("")
    code, _, errors = _main(
        tmp_path,
        capsys,
        "stage1.train.tokns=3",
        "mesh.data=3",
        "stage2.start=stage9",
        "sources.ko_news.path=/not/there",
        f"sources.ko_code.path={empty}",
        "sources.en_code.path=microworld://cod/en",
        "tokenizer.path=/no/tokenizer",
        "data.lanes=3",
    )
    assert code == 2 and not (tmp_path / "w").exists()
    words = (
        "stage1.train.tokns",
        "mesh data 3",
        "stage9",
        "/not/there",
        "ko_code",
        "no kind 'cod'",
        "/no/tokenizer",
        "data.lanes",
    )
    assert len(errors) == len(words)
    for word in words:
        assert sum(word in error for error in errors) == 1, word


def test_every_mistake_of_the_file_is_told(tmp_path, capsys):
    file = tmp_path / "bad.py"
    file.write_text(
        "from kanana_jax.config import read_config_file\n"
        "def get_config():\n"
        f"    c = read_config_file('{ROOT}/configs/tiny.py:test').unlock()\n"
        "    with c.ignore_type():\n"
        "        c.seed = 'one'\n"
        "        c.wokers = 3\n"
        "        c.stage1.train.optimizer['lerning_rate'] = 1.0\n"
        "        c.stage1['mixture'] = 3\n"
        "        c.deeper.kind = 'pretrian'\n"
        "    return c\n"
    )
    assert main(["run", "--config", str(file), "--workdir", str(tmp_path / "w"), "--dry-run"]) == 2
    errors = capsys.readouterr().err
    for word in ("'seed'", "'wokers'", "lerning_rate", "'stage1.mixture'", "'deeper.kind'"):
        assert word in errors


@pytest.mark.usefixtures("no_reports")
def test_a_workdir_that_is_there(tmp_path, capsys, tiny_config):
    config = tiny_config("stages=('stage1', 'stage2')", "stage2.train.tokens=512", "samples.prompts={}")
    recipe.run(config, tmp_path / "w", devices=jax.devices()[:8])
    capsys.readouterr()
    same = ("stages=('stage1','stage2')", "stage2.train.tokens=512", "samples.prompts={}")
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "w").rglob("*")}
    code, out, errors = _main(tmp_path, capsys, *same, "evaluation.batch_size=16")
    assert code == 0 and not errors
    assert "14, 14 of them already prepared" in out and "(resumed; changed: evaluation.batch_size)" in out
    index = json.loads(next((tmp_path / "w/data").glob("ko_news-*/index.json")).read_text())
    assert f"{index['train']['documents']} documents" in out and out.count(" finished ") == 2
    code, _, errors = _main(tmp_path, capsys, *same, "seed=1")
    assert code == 2 and len(errors) == 1 and "seed was 0, is 1" in errors[0]
    assert before == {file: file.stat().st_mtime_ns for file in (tmp_path / "w").rglob("*")}


def test_a_stage_that_does_not_fit_is_told(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(estimate, "limit", lambda device: 1 << 20)
    code, _, errors = _main(tmp_path, capsys)
    assert code == 2 and all("on each device, which has 1.05 MB" in error for error in errors)
    assert any(error.startswith("kanana: stage 'stage1' needs about") for error in errors)


def test_its_remedies_are_the_plan_s_and_fit(tmp_path, capsys, monkeypatch, tiny_config):
    sizes = ("stages=('stage1',)", "stage1.train.batch_tokens=8192", "runtime.param_dtype=float32")
    recipe_, stages = config_lib.parse(tiny_config(*sizes))
    asked = request.Asked(recipe_, stages, "stage1")
    parts = fit.needs(asked, jax.devices())
    limit = int(0.8 * sum(parts.values()))
    monkeypatch.setattr(estimate, "limit", lambda device: limit)
    code, _, errors = _main(tmp_path, capsys, *sizes)
    rows = [row for row in fit.remedies(asked, jax.devices(), parts, limit) if row["fits"]]
    assert code == 2 and len(errors) == 1 and rows
    assert all(row["change"] in errors[0] for row in rows[:3])
    changes = [word.removeprefix("--config.") for word in rows[0]["change"].split()]
    code, out, errors = _main(tmp_path, capsys, *sizes, *changes)
    assert code == 0 and not errors and f"{rows[0]['total'] / 2**30:.2f}" in out


@pytest.mark.parametrize("remat", ("none", "full"))
def test_memory_is_near_what_the_compiler_says(tiny_config, remat):
    """Large enough that what scales with the model decides, on one device."""
    from kanana_jax.parallel.mesh import make_mesh
    from kanana_jax.recipe.config import parse
    from kanana_jax.recipe.context import shapes

    sizes = dict(embed_dim=128, mlp_dim=512, num_layers=6, num_heads=4, head_dim=32, max_seq_len=512)
    config = tiny_config(
        *(f"stage1.model.{key}={value}" for key, value in sizes.items()),
        *("stage1.train.batch_tokens=8192", "stage1.train.seq_len=256", "stage1.train.tokens=8192"),
        *(f"runtime.remat={remat}", "runtime.scan_layers=true"),
    )
    parsed, stages = parse(config)
    mesh = make_mesh(parsed.mesh, jax.devices()[:1])
    programs = dry_run.KINDS["pretrain"].programs
    assert programs is not None
    known = shapes(parsed, stages, mesh)
    compiled = programs("stage1", stages["stage1"], known).step.trace().lower().compile().memory_analysis()
    measured = compiled.argument_size_in_bytes + compiled.temp_size_in_bytes
    estimated = estimate.estimate(lambda others: programs("stage1", stages["stage1"], others), known)
    print(remat, {k: round(v / 2**20, 1) for k, v in estimated.items()}, round(measured / 2**20, 1))
    assert 0.6 < sum(estimated.values()) / measured < 1.4
