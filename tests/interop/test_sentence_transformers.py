"""The folder of an exported embedding model: what sentence-transformers reads, and what is refused."""

import json

import own_models
import pytest

from kanana_jax import cli
from kanana_jax.data import microworld
from kanana_jax.data.tokens.tokenizer import load_tokenizer
from kanana_jax.errors import UserError
from kanana_jax.inference.session import Session
from kanana_jax.interop import model_folder, sentence_transformers
from kanana_jax.models.architecture import Architecture, LayerKind
from kanana_jax.models.embedding import Embedding

ABOUT = Embedding(instruction="Query:\n", longest=48, pooling="last", dims=(8,))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = own_models.write(tmp_path_factory.mktemp("trained"), "bpe", microworld.World.create(0, 100))
    card = json.loads((folder / "model.json").read_text("utf-8"))
    (folder / "model.json").write_text(json.dumps(card | {"embedding": ABOUT.to_dict()}), encoding="utf-8")
    return folder


def _json(file):
    return json.loads(file.read_text("utf-8"))


def test_an_exported_folder_says_how_vectors_are_made(trained, tmp_path, caplog):
    out = tmp_path / "out"
    assert cli.main(["export", str(trained), str(out)]) == 0
    modules = _json(out / "modules.json")
    assert [m["type"].rpartition(".")[2] for m in modules] == ["Transformer", "Pooling", "Normalize"]
    assert all((out / m["path"]).is_dir() for m in modules) and _json(out / "config.json")["is_causal"] is False
    pooling = _json(out / "1_Pooling/config.json")
    assert pooling["pooling_mode_lasttoken"] and not pooling["pooling_mode_mean_tokens"]
    assert pooling["word_embedding_dimension"] == 32 and pooling["include_prompt"] is False
    assert _json(out / "config_sentence_transformers.json")["prompts"] == {"query": "Query:\n", "document": ""}
    assert _json(out / "sentence_bert_config.json")["max_seq_length"] == 48
    told = _json(out / "tokenizer_config.json")
    assert told["padding_side"] == "right" and told["pad_token"]
    assert "library_name: sentence-transformers" in (out / "README.md").read_text("utf-8")
    assert not list(out.rglob("*.py")) and "runs on into a text" not in caplog.text
    with pytest.raises(UserError, match="attends to both sides"):
        Session.load(str(out))  # nobody takes it for a model that continues texts


def test_other_models_get_no_such_files_and_gguf_and_windows_are_refused(trained, tmp_path, capsys):
    plain = own_models.write(tmp_path / "plain", "bpe", microworld.World.create(0, 100))
    model_folder.transfer(plain, tmp_path / "plain_out", keep_card=False)
    assert not (tmp_path / "plain_out/modules.json").exists()
    assert "is_causal" not in _json(tmp_path / "plain_out/config.json")
    assert cli.main(["export", str(trained), str(tmp_path / "out.gguf")]) != 0
    assert "attends to both sides" in capsys.readouterr().err
    windows = Architecture(
        vocab_size=64, embed_dim=32, mlp_dim=48, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=8, max_seq_len=64,
        layer_pattern=(LayerKind(window=3), LayerKind()),
    )  # fmt: skip
    assert sentence_transformers.config_keys(Embedding(causal=True), windows) == {}
    with pytest.raises(UserError, match="windows that attend to both sides"):
        sentence_transformers.config_keys(ABOUT, windows)


def test_an_instruction_whose_last_token_runs_on_is_told(trained):
    tokenizer = load_tokenizer(trained)
    assert sentence_transformers.ends_at_a_token(tokenizer, "Query:\n")
    assert not sentence_transformers.ends_at_a_token(tokenizer, "Query: ")
