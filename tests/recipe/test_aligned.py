"""The paper's second half in one recipe: conversations, a reward model, preferences, own answers, a merge."""

import json

import jax
import pytest
from conftest import ROOT

from kanana_jax import config as config_lib
from kanana_jax.interop import model_folder
from kanana_jax.recipe import run as recipe


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    config = config_lib.read_config_file(f"{ROOT}/configs/tiny.py:aligned-test")
    config.stages = ("stage1", "sft", "reward", "dpo", "online", "merged")
    config.sft.start = "stage1"
    for name in ("stage1", "sft", "reward", "dpo"):
        config[name].train.tokens = 2 * config[name].train.batch_tokens
    folder = tmp_path_factory.mktemp("aligned")
    recipe.run(config, folder, devices=jax.devices()[:1])
    return folder


def test_every_stage_leaves_a_model(workdir):
    for name in ("sft", "dpo", "online", "merged"):
        assert model_folder.find(workdir / name).architecture == model_folder.find(workdir / "stage1").architecture
    assert (workdir / "reward/model/model.json").is_file()
    card = json.loads((workdir / "online/model/model.json").read_text(encoding="utf-8"))
    assert card["stage"] == "online"


def test_each_stage_is_evaluated_on_sources_of_its_form(workdir):
    forms = {"sft": "chat", "reward": "pairs", "dpo": "pairs", "online": "prompts"}
    for name, form in forms.items():
        lines = [json.loads(line) for line in (workdir / name / "metrics.jsonl").read_text("utf-8").splitlines()]
        (figures, *_) = next(line for line in reversed(lines) if "eval" in line)["eval"].values()
        assert {key for key in figures if key.startswith("source/")} == {f"source/ko_{form}", f"source/en_{form}"}
    lines = [json.loads(line) for line in (workdir / "stage1/metrics.jsonl").read_text("utf-8").splitlines()]
    (figures, *_) = next(line for line in reversed(lines) if "eval" in line)["eval"].values()
    assert not any("chat" in key or "pairs" in key or "prompts" in key for key in figures)


def test_the_report_has_a_chapter_of_each(workdir):
    page = (workdir / "report.html").read_text(encoding="utf-8")
    for name in ("sft", "reward", "dpo", "online", "merged"):
        assert name in page
