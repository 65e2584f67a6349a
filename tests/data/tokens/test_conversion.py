"""A SentencePiece model as `tokenizer.json`: the ids of SentencePiece itself, for every kind of model that has one."""

import io
import json
import logging

import pytest
import sentencepiece

from kanana_jax.data import microworld
from kanana_jax.data.tokens import conversion, specials
from kanana_jax.data.tokens.tokenizer import load_tokenizer

TEXTS = {
    lang: [r["text"] for r in microworld.parse_uri(f"microworld://news/{lang}?count=80&size=100")]
    for lang in ("ko", "en", "ja")
}
OLD = dict(  # as vocabularies were trained here before
    normalization_rule_name="identity", remove_extra_whitespaces=False, add_dummy_prefix=False, split_digits=True,
    allow_whitespace_only_pieces=True, user_defined_symbols=["\n"], control_symbols=list(specials.CONTROL),
    bos_id=1, eos_id=2, pad_id=3, byte_fallback=True,
)  # fmt: skip
KINDS = {
    "earlier unigram": dict(OLD, model_type="unigram"),
    "earlier bpe": dict(OLD, model_type="bpe"),
    "llama 2": dict(
        model_type="bpe", normalization_rule_name="identity", byte_fallback=True, remove_extra_whitespaces=False
    ),
    "normalising": dict(model_type="unigram", normalization_rule_name="nmt_nfkc", byte_fallback=True),
    "casefolding bpe": dict(model_type="bpe", normalization_rule_name="nmt_nfkc_cf"),
}
ODD = [
    "",
    " ",
    "  a  b \n c\t",
    "ﾊﾝｶｸ ＡＢＣ １２３ ﬁ ㍿",
    "👍🏽 e\u0301 \u1112\u1161\u11ab",
    "1234567 aaaaaaa ..........",
    "\n\n x\n",
]


@pytest.fixture(scope="module")
def models():
    """Trained once, by kind."""
    made = {}

    def make(kind):
        if kind not in made:
            model = io.BytesIO()
            lines = (line for texts in TEXTS.values() for text in texts for line in text.split("\n") if line)
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=lines,
                model_writer=model,
                vocab_size=1500,
                minloglevel=2,
                num_threads=1,
                **KINDS[kind],
            )
            made[kind] = model.getvalue()
        return made[kind]

    return make


@pytest.fixture
def folder(request, models, tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(models(request.param))
    return tmp_path


@pytest.mark.parametrize("folder", KINDS, indirect=True)
def test_ids_and_texts_are_sentencepieces(folder):
    library = sentencepiece.SentencePieceProcessor(model_proto=(folder / "tokenizer.model").read_bytes())
    conversion.complete(folder)
    ours = load_tokenizer(folder)
    assert type(ours).__name__ == "HuggingFace"
    for text in (*ODD, *(text for texts in TEXTS.values() for text in texts[:40])):
        ids = ours.encode(text).tolist()
        assert ids == library.encode(text)
        assert library.unk_id() in ids or ours.decode(ids) == library.decode(ids)


@pytest.mark.parametrize("folder", ["earlier unigram", "earlier bpe"], indirect=True)
def test_the_vocabulary_stays_the_same_one(folder):
    before = load_tokenizer(folder)
    conversion.complete(folder)
    after = load_tokenizer(folder)
    told = [(t.fingerprint, t.vocab_size, t.bos_id, t.eos_id, t.token_id("<|eot_id|>")) for t in (before, after)]
    assert told[0] == told[1]
    for text in ("<s>하나</s> <|eot_id|>", "\u2581 a\u2581"):
        assert after.decode(after.encode(text)) == text == before.decode(before.encode(text))
        assert before.encode_with_symbols(text).tolist() == after.encode_with_symbols(text).tolist()


@pytest.mark.parametrize("folder", ["earlier unigram"], indirect=True)
def test_a_unigrams_own_file_is_taken_away(folder):
    conversion.complete(folder)
    assert not (folder / "tokenizer.model").exists()


@pytest.mark.parametrize("folder", ["llama 2"], indirect=True)
def test_what_a_folder_says_of_itself_is_kept(folder):
    (folder / "tokenizer_config.json").write_text('{"chat_template": "{{ x }}", "tokenizer_class": "LlamaTokenizer"}')
    (folder / "generation_config.json").write_text('{"eos_token_id": [2, 7]}')
    conversion.complete(folder)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    assert config["chat_template"] == "{{ x }}" and config["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert json.loads((folder / "generation_config.json").read_text()) == {"eos_token_id": [2, 7]}
    assert (folder / "tokenizer.model").is_file()


@pytest.mark.parametrize("folder", ["earlier bpe"], indirect=True)
def test_what_cannot_be_told_exactly_is_left_as_it_is(folder, caplog):
    (folder / "added_tokens.json").write_text('{"<extra>": 1500}')
    with caplog.at_level(logging.WARNING, "kanana"):
        conversion.complete(folder)
    assert "tokens were added" in caplog.text
    assert sorted(p.name for p in folder.iterdir()) == ["added_tokens.json", "tokenizer.model"]
