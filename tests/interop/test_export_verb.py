"""`kanana export` and `kanana import`: folders that other tools read, from stages and from SentencePiece's older form."""

import json

import own_models
import pytest
import sentencepiece
import tokenizers

from kanana_jax import cli
from kanana_jax.data import microworld
from kanana_jax.data.tokens import specials
from kanana_jax.data.tokens.tokenizer import load_tokenizer
from kanana_jax.interop import model_folder


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    return own_models.write(tmp_path_factory.mktemp("own"), "bpe", microworld.World.create(0, 200))


def test_a_stage_is_exported_with_all_that_its_ids_need(stage, tmp_path, capsys):
    out = tmp_path / "out"
    assert cli.main(["export", str(stage), str(out)]) == 0
    names = {p.name for p in out.iterdir()}
    assert {"config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"} <= names
    assert "chat_template.jinja" in names and "model.json" not in names
    ours, library = load_tokenizer(stage), tokenizers.Tokenizer.from_file(str(out / "tokenizer.json"))
    text = "가람시의 2024년, it's  \n\n 새 책"
    assert library.encode(text).ids == [ours.bos_id, *ours.encode(text)]
    assert load_tokenizer(out).fingerprint == ours.fingerprint
    assert [p.name for p in tmp_path.iterdir()] == ["out"]  # and no lock
    assert cli.main(["export", str(stage), str(out)]) == 2 and "not empty" in capsys.readouterr().err
    assert cli.main(["import", str(out), str(tmp_path / "again")]) == 0
    assert load_tokenizer(tmp_path / "again").fingerprint == ours.fingerprint


def test_an_earlier_stage_gets_the_form_that_other_tools_read(stage, tmp_path):
    """Its vocabulary is a SentencePiece model alone."""
    texts = [r["text"] for r in microworld.parse_uri("microworld://news/en?count=60&size=100")]
    old = tmp_path / "old"
    old.mkdir()
    with (old / "tokenizer.model").open("wb") as model:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts), model_writer=model, vocab_size=400, byte_fallback=True, add_dummy_prefix=False,
            normalization_rule_name="identity", remove_extra_whitespaces=False, user_defined_symbols=["\n"],
            allow_whitespace_only_pieces=True, control_symbols=list(specials.CONTROL), bos_id=1, eos_id=2, pad_id=3,
            minloglevel=2, num_threads=1,
        )  # fmt: skip
    before = load_tokenizer(old)
    for file in stage.iterdir():
        if not file.name.startswith(("tokenizer", "special", "generation", "chat")):
            (old / file.name).write_bytes(file.read_bytes())
    config = json.loads((old / "config.json").read_text("utf-8")) | {"bos_token_id": 1, "eos_token_id": 2}
    (old / "config.json").write_text(json.dumps(config), "utf-8")
    assert cli.main(["export", str(old), str(tmp_path / "out")]) == 0
    library = tokenizers.Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json"))
    for text in texts[:20]:
        assert library.encode(text).ids == [1, *before.encode(text)]
    assert load_tokenizer(tmp_path / "out").fingerprint == before.fingerprint
    assert model_folder.find(tmp_path / "out").architecture.vocab_size == before.vocab_size
