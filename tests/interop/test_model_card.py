"""Model cards state what files say, and leave out the rest; exported folders hold one."""

import json
import pathlib

import own_models
import pytest
import yaml

from kanana_jax import cli
from kanana_jax.data import microworld
from kanana_jax.errors import UserError
from kanana_jax.interop import model_card, model_folder

SOURCES = {
    "faq": {"lang": "ko", "documents": 300, "kept": 280, "tokens": 12_345},
    "wiki": {"lang": "en", "documents": 20, "kept": 20, "tokens": 900},
    "idle": {"lang": "ja", "documents": 0, "kept": 0, "tokens": 0},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A workdir whose stage `sft` was made from a foreign folder with a card of its own."""
    top = tmp_path_factory.mktemp("run")
    own = own_models.write(top / "own", "bpe", microworld.World.create(0, 200))
    base, model = top / "models--lab--base-1b" / "snapshots" / "abc", top / "w" / "sft" / "model"
    for folder in (base, model):
        folder.mkdir(parents=True)
        for file in own.iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
    (base / "model.json").unlink()
    (base / "README.md").write_text("---\nlicense: apache-2.0\ntags: [x]\n---\n# Base\nlicense: mit\n", "utf-8")
    card = json.loads((model / "model.json").read_text("utf-8"))
    card |= {"parent": str(base), "stage": "sft", "tokens": 13_245, "flops_six_n_d": 2.5e9}
    card["evaluation"] = {
        "bits_per_byte": {"lang/ko": 1.25, "source/faq": 1.1},
        "tasks": {"kpi": {"exact_match": 0.5, "exact_match_stderr": 0.1}},
    }
    (model / "model.json").write_text(json.dumps(card), "utf-8")
    (model.parent / "data_report.json").write_text(json.dumps({"sources": SOURCES}), "utf-8")
    asked = {"sft": {"results": {"facts": {"acc": 0.75, "acc_stderr": 0.05, "n": 40}}}, "other": {"results": {"x": {}}}}
    (top / "w" / "evaluated").mkdir()
    (top / "w" / "evaluated" / "evaluation.json").write_text(json.dumps({"models": asked}), "utf-8")
    config = {"sources": {"faq": {"path": "/home/kim/secret/faq"}, "wiki": {"path": "hf://lab/wiki/en:train"}}}
    command = "kanana run --config=c.py:/home/kim/m,hf://a/b --workdir /home/kim/w/ --config.name='our name'"
    command += """ --config.evaluated.models="['/home/kim/client-x/a', '/home/kim/b']" """
    command += """ "/home/O'Brien/Models (old)/acme/m" --prompt="Either / or" """
    (top / "w" / "config.json").write_text(json.dumps({"config": config, "command": command}), "utf-8")
    return top / "w"


def _parts(text):
    head, body = text.removeprefix("---\n").split("\n---\n", 1)
    return yaml.safe_load(head), body


def test_a_card_states_what_the_files_say(run, tmp_path):
    out = tmp_path / "faq-1b"
    command = ["export", str(run / "sft"), str(out)]
    assert cli.main(command) == 0
    head, body = _parts((out / "README.md").read_text("utf-8"))
    assert head.pop("model-index") == [
        {
            "name": "faq-1b",
            "results": [
                {
                    "task": {"type": "text-generation"},
                    "dataset": {"name": "kpi", "type": "kpi"},
                    "metrics": [{"type": "exact_match", "value": 0.5}],
                },
                {
                    "task": {"type": "text-generation"},
                    "dataset": {"name": "facts", "type": "facts"},
                    "metrics": [{"type": "acc", "value": 0.75}],
                },
            ],
        }
    ]
    assert head == {
        "license": "apache-2.0",
        "base_model": "lab/base-1b",
        "language": ["en", "ko"],
        "datasets": ["lab/wiki"],
        "library_name": "transformers",
        "tags": ["kanana-jax"],
    }
    for fact in (
        "[lab/base-1b]",
        "| sft | 13,245 | 2.5e+09 |",
        "| faq | ko | 300 | 280 | 12,345 |",
        "| bits per byte | ko | 1.2500 |",
    ):
        assert fact in body
    assert "| kpi | exact_match | 0.5000 | ± 0.1000 |" in body and "| facts | acc | 0.7500 | ± 0.0500 | 40 |" in body
    assert "kanana run --config=c.py:m,hf://a/b --workdir w '--config.name=our name' '--config.evaluated.models=[" in body
    assert " m '--prompt=Either / or'" in body
    for left_out in ("idle", "/home", "kim", "client-x", "Brien", "acme", str(tmp_path), "mit"):
        assert left_out not in body
    assert not (out / "model.json").exists()


def test_what_no_file_says_is_left_out(run):
    foreign = run.parent / "models--lab--base-1b" / "snapshots" / "abc"
    head, body = _parts(model_card.text(model_folder.find(foreign), "copy", model_card.Told()))
    assert head.keys() == {"license", "base_model", "library_name", "tags"}
    assert "## Training" not in body and "## Data" not in body and "## Evaluation" not in body
    alone = run.parent / "own" / "model"
    head, body = _parts(model_card.text(model_folder.find(alone), "alone", model_card.Told()))
    assert head.keys() == {"library_name", "tags"} and "Licence" not in body and "Made from" not in body


def test_the_user_tells_base_licence_and_results(run):
    found = model_folder.find(run / "sft")
    result = {
        "settings": {"model": str(run / "sft")},
        "results": {"kpi": {"exact_match": 0.75, "exact_match_stderr": 0.05, "n": 80, "shots": 0, "chat": True}},
    }
    told = model_card.Told("lab/other", "llama3.2", [result])
    head, body = _parts(model_card.text(found, "x", told))
    assert (head["license"], head["base_model"]) == ("llama3.2", "lab/other")
    assert "| kpi | exact_match | 0.7500 | ± 0.0500 | 80 | 0 | yes |" in body and "0.5000" not in body
    elsewhere = model_card.Told(results=[result | {"settings": {"model": "runs/other"}}])
    with pytest.raises(UserError, match="a file of results is of runs/other, not of"):
        model_card.text(found, "x", elsewhere)


@pytest.mark.parametrize(
    "card", ["# no metadata", "---\nlicense: [\n---\n", "---\n- a\n---\n", "---\nlicense: 3\n---\n"]
)
def test_a_damaged_card_of_the_base_tells_no_licence(tmp_path, card):
    (tmp_path / "README.md").write_text(card, encoding="utf-8")
    assert model_card._declared_licence(pathlib.Path(tmp_path)) == ""
