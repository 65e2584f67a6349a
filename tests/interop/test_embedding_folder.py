"""Folders of sentence-transformers, read back: our own exports, other forms of theirs, and what is refused."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import own_models
import pytest
from safetensors.numpy import load_file, save_file

from kanana_jax import cli
from kanana_jax.applications.embedder import Embedder
from kanana_jax.data import microworld
from kanana_jax.errors import UserError
from kanana_jax.interop import embedding_folder, model_folder
from kanana_jax.models.embedding import Embedding

TEXTS = ["가람시에 새 도서관이 문을 열었다.", "7", "A new library opened in the city.", "가나다 " * 60]
ABOUT = Embedding(instruction="Query:\n", longest=48)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = own_models.write(tmp_path_factory.mktemp("trained"), "bpe", microworld.World.create(0, 100))
    _change(folder / "model.json", embedding=ABOUT.to_dict())
    return folder


@pytest.fixture(scope="module")
def exported(trained):
    model_folder.transfer(trained, trained.parent / "exported", keep_card=False)
    return trained.parent / "exported"


@pytest.fixture
def copy(exported, tmp_path):
    return shutil.copytree(exported, tmp_path / "copy")


def _change(file, **keys):
    found = json.loads(file.read_text("utf-8")) if file.is_file() else {}
    file.write_text(json.dumps({key: value for key, value in {**found, **keys}.items() if value != "-"}), "utf-8")


def _load(folder):
    return Embedder.load(str(folder), devices=jax.devices()[:1])


def _same(one, other, about=ABOUT):
    """Both make the same vectors of documents and of queries, and cut the same texts."""
    np.testing.assert_allclose(one(TEXTS).values, other(TEXTS).values, atol=1e-6)
    asked, found = one(TEXTS, one.about.instruction), other(TEXTS, about.instruction)
    np.testing.assert_allclose(asked.values, found.values, atol=1e-6)
    assert asked.left_out.tolist() == found.left_out.tolist() and asked.left_out[-1] > 0


def test_an_export_makes_the_same_vectors_and_is_imported_again(trained, exported, tmp_path):
    one = _load(exported)
    assert one.about == ABOUT
    _same(one, _load(trained))
    assert cli.main(["import", str(exported), str(tmp_path / "in")]) == 0
    assert model_folder.find(tmp_path / "in").embedding == ABOUT
    last = dataclasses.replace(ABOUT, pooling="last", causal=True)
    _change(trained / "model.json", embedding=last.to_dict())
    model_folder.transfer(trained, tmp_path / "last", keep_card=False)
    _change(trained / "model.json", embedding=ABOUT.to_dict())
    assert _load(tmp_path / "last").about == last


def test_published_forms(trained, copy):
    """Classes without output, tensors without `model.`, later names of modules, a prompt before documents."""
    config = json.loads((copy / "config.json").read_text("utf-8"))
    _change(copy / "config.json", architectures=["LlamaModel"])
    for file in copy.glob("*.safetensors"):
        tensors = {name.removeprefix("model."): value for name, value in load_file(file).items()}
        save_file({name: value for name, value in tensors.items() if name != "lm_head.weight"}, file)
    index = copy / "model.safetensors.index.json"
    if index.is_file():
        named = json.loads(index.read_text("utf-8"))["weight_map"]
        _change(index, weight_map={k.removeprefix("model."): v for k, v in named.items() if k != "lm_head.weight"})
    module = "sentence_transformers.{}.modules.{}.{}"
    listed = [("", "base", "Transformer"), ("1_Pooling", "sentence_transformer", "Pooling")]
    modules = [{"path": path, "type": module.format(part, name.lower(), name)} for path, part, name in listed]
    (copy / "modules.json").write_text(json.dumps(modules), "utf-8")
    (copy / "1_Pooling/config.json").write_text('{"embedding_dimension": 32, "pooling_mode": "mean"}', "utf-8")
    _change(copy / "config_sentence_transformers.json", prompts={"query": "Query:\n", "passage": "글: "})
    found, ours = _load(copy), _load(trained)
    assert config["tie_word_embeddings"] is False and found.model.architecture.tied_embeddings
    assert found.about == dataclasses.replace(ABOUT, document="글: ", counts_instruction=True)
    (want,) = ours(["글: 도서관"]).values
    np.testing.assert_allclose(found(["도서관"]).values[0], want, atol=1e-6)
    (want,) = ours(["Query:\n도서관"]).values  # the instruction counts, as it does where it is part of the text
    np.testing.assert_allclose(found(["도서관"], found.about.instruction).values[0], want, atol=1e-6)


@pytest.mark.parametrize(
    ("file", "keys", "told"),
    [
        ("1_Pooling/config.json", {"pooling_mode_mean_tokens": False, "pooling_mode_cls_token": True}, "cls_token"),
        ("1_Pooling/config.json", {"pooling_mode_max_tokens": True}, "mean_tokens.*max_tokens"),
        ("sentence_bert_config.json", {"do_lower_case": True}, "do_lower_case"),
        ("sentence_bert_config.json", {"max_seq_length": "512"}, "max_seq_length"),
        ("sentence_bert_config.json", {"model_args": {"dtype": "float32", "use_bias": True}}, "model_args"),
        ("sentence_bert_config.json", {"processor_kwargs": {"do_lower_case": True}}, "processor_kwargs"),
        ("config_sentence_transformers.json", {"prompts": {"query": 3}}, "query"),
        ("config_sentence_transformers.json", {"default_prompt_name": "ask"}, "default_prompt_name"),
    ],
)
def test_what_makes_other_vectors_is_refused(copy, file, keys, told):
    _change(copy / file, **keys)
    with pytest.raises(UserError, match=told):
        model_folder.find(copy)


@pytest.mark.parametrize(
    ("modules", "told"),
    [
        (["models.Transformer", "models.Pooling", "models.Dense", "models.Normalize"], "module Dense is not"),
        (["models.Transformer", "models.Normalize", "models.Pooling"], "not supported in this order"),
        (["models.Transformer"], "not supported in this order"),
        (["models.Transformer", "models.Pooling", "/own.Code"], "module own.Code is not"),
    ],
)
def test_other_modules_are_refused_by_name(copy, modules, told, capsys):
    kinds = [name[1:] if name[0] == "/" else f"sentence_transformers.{name}" for name in modules]
    listed = [{"path": f"{i}_{kind}" if i else "", "type": kind} for i, kind in enumerate(kinds)]
    (copy / "modules.json").write_text(json.dumps(listed), "utf-8")
    assert cli.main(["embed", str(copy), "none.jsonl", "--output", str(copy / "out")]) == 1
    assert told in capsys.readouterr().err


def test_length_is_the_shortest_that_is_told(copy):
    config = {"architectures": ["LlamaForCausalLM"]}
    _change(copy / "sentence_bert_config.json", max_seq_length=None)
    _change(copy / "tokenizer_config.json", model_max_length=300)
    assert embedding_folder.read(copy, config).longest == 300
    _change(copy / "tokenizer_config.json", model_max_length=int(1e30))
    assert embedding_folder.read(copy, config).longest == 0
    assert _load(copy).about.longest == 512  # as many as the model can read
    _change(copy / "sentence_bert_config.json", tokenizer_args={"model_max_length": 40, "padding_side": "left"})
    assert embedding_folder.read(copy, config).longest == 40
    (copy / "modules.json").unlink()
    assert embedding_folder.read(copy, config) is None
