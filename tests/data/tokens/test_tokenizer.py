"""Tokenizers are exact on any text, reproducible, and fair to languages."""

import json

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kanana_jax.data import microworld
from kanana_jax.data.tokens import chat, tokenizer
from kanana_jax.data.tokens import training as tokenizer_training
from kanana_jax.errors import UserError

TEXTS = {
    lang: [r["text"] for r in microworld.parse_uri(f"microworld://news/{lang}?count=300&size=100")]
    for lang in ("ko", "en")
}
CONFIG = tokenizer_training.TokenizerConfig(vocab_size=900, train_bytes=60_000)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return tokenizer_training.train_sentencepiece(TEXTS, CONFIG, tmp_path_factory.mktemp("sp"))


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
@example("  두 칸\n\n\t탭 각 👍 e\u0301 <s> <|eot_id|> 12345 ")
@example("\u3000\x00\u200b")
@settings(max_examples=300, deadline=None)
def test_sentencepiece_round_trip_is_exact(trained, text):
    ids = trained.encode(text)
    assert trained.decode(ids) == text
    control = [trained.bos_id, trained.eos_id, *(trained.token_id(c) for c in tokenizer_training.CONTROL)]
    assert not set(ids.tolist()) & set(control)


def test_training_twice_gives_the_same_bytes(trained, tmp_path):
    again = tokenizer_training.train_sentencepiece(TEXTS, CONFIG, tmp_path)
    assert again.fingerprint == trained.fingerprint and again.vocab_size == 900


def test_both_languages_are_served(trained):
    for lang, texts in TEXTS.items():
        text = "".join(texts[:20])
        assert len(trained.encode(text)) < (0.9 if lang == "ko" else 0.5) * len(text)


def test_documents_have_bos_and_eos_once(trained):
    ids = tokenizer.encode_document(trained, TEXTS["ko"][0])
    assert ids[0] == trained.bos_id and ids[-1] == trained.eos_id
    assert not {trained.bos_id, trained.eos_id} & set(ids[1:-1].tolist())


def test_too_small_a_vocabulary_and_missing_language_are_errors(tmp_path):
    with pytest.raises(UserError, match="vocab_size 300"):
        tokenizer_training.train_sentencepiece(
            TEXTS, tokenizer_training.TokenizerConfig(vocab_size=300, train_bytes=9999), tmp_path
        )
    config = tokenizer_training.TokenizerConfig(vocab_size=900, shares={"ja": 1.0})
    with pytest.raises(UserError, match="'ja'"):
        tokenizer_training.train_sentencepiece(TEXTS, config, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def hugging_face(tmp_path_factory):
    """A byte-level BPE in Llama 3's form."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    specials = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(TEXTS["ko"] + TEXTS["en"], trainer)
    folder = tmp_path_factory.mktemp("hf")
    bpe.save(str(folder / "tokenizer.json"))
    config = {"bos_token": "<|begin_of_text|>", "eos_token": {"content": "<|end_of_text|>"}}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return tokenizer.load_tokenizer(folder)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
@example("<|eot_id|> 안녕")
@settings(max_examples=100, deadline=None)
def test_hugging_face_round_trip_and_specials_stay_text(hugging_face, text):
    ids = hugging_face.encode(text)
    assert hugging_face.decode(ids) == text
    assert hugging_face.token_id("<|eot_id|>") not in ids.tolist()


def test_batches_equal_singles(hugging_face, trained):
    for t in (hugging_face, trained):
        for a, b in zip(t.encode_batch(TEXTS["ko"][:5]), [t.encode(x) for x in TEXTS["ko"][:5]]):
            np.testing.assert_array_equal(a, b)


def test_saved_tokenizers_load_again(hugging_face, trained, tmp_path):
    for name, t in (("a", hugging_face), ("b", trained)):
        (tmp_path / name).mkdir()
        t.save(tmp_path / name)
        again = tokenizer.load_tokenizer(tmp_path / name)
        assert (again.fingerprint, again.bos_id, again.eos_id) == (t.fingerprint, t.bos_id, t.eos_id)


@pytest.mark.parametrize(
    "content, word", [(None, "no tokenizer"), (b"{}", "not a Hugging Face"), (b"junk", "not a Sentence")]
)
def test_broken_tokenizers(tmp_path, content, word):
    if content is not None:
        (tmp_path / ("tokenizer.json" if content == b"{}" else "tokenizer.model")).write_bytes(content)
    with pytest.raises(UserError, match=word):
        tokenizer.load_tokenizer(tmp_path)


def test_chat_format_is_llama_3s(hugging_face, trained):
    for t in (hugging_face, trained):
        ids = chat.encode_chat(
            t, [{"role": "system", "content": " 짧게 답하라 "}, {"role": "user", "content": "hi <|eot_id|>"}]
        )
        begin, end, eot = (t.token_id(s) for s in ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"))
        want = [t.bos_id]
        for role, text in (("system", "짧게 답하라"), ("user", "hi <|eot_id|>")):
            want += [begin, *t.encode(role), end, *t.encode("\n\n"), *t.encode(text), eot]
        want += [begin, *t.encode("assistant"), end, *t.encode("\n\n")]
        assert ids.tolist() == want
        assert ids.tolist().count(eot) == 2
    with pytest.raises(UserError, match="role 'tool'"):
        chat.encode_chat(trained, [{"role": "tool", "content": "x"}])


@pytest.mark.parametrize("text", ["\u2581", " \u2581 a", "a\u2581\u2581b \u2581", "\u2581\n\u2581각"])
def test_sentencepieces_own_space_sign_comes_back(trained, text):
    assert trained.decode(trained.encode(text)) == text
    assert trained.decode(trained.encode_batch([text, "b"])[0]) == text


def test_documents_of_one_long_line_train_too(tmp_path):
    """SentencePiece leaves out lines beyond its limit: a corpus of such documents must still work."""
    long = {lang: [" ".join(t.replace("\n", " ") for t in texts)] for lang, texts in TEXTS.items()}
    assert all(len(t.encode()) > 2 * tokenizer_training.MAX_LINE_BYTES for texts in long.values() for t in texts)
    assert tokenizer_training.train_sentencepiece(long, CONFIG, tmp_path).vocab_size == 900


@pytest.mark.parametrize("texts", [[], TEXTS["ko"]], ids=["none", "an iterator that ends"])
def test_a_language_without_text_is_named(tmp_path, texts):
    config = tokenizer_training.TokenizerConfig(vocab_size=900, train_bytes=1_000_000)
    with pytest.raises(UserError, match="^language 'ko' has no text to train the tokenizer on$"):
        tokenizer_training.train_sentencepiece({"ko": iter(texts), "en": TEXTS["en"]}, config, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_run_killed_while_training_leaves_nothing_that_looks_like_a_tokenizer(tmp_path):
    seen = []

    class Watched:
        def __iter__(self):
            for text in TEXTS["ko"]:
                seen.append(sorted(p.name for p in tmp_path.iterdir()))
                yield text

    tokenizer_training.train_sentencepiece({"ko": Watched(), "en": TEXTS["en"]}, CONFIG, tmp_path)
    assert any(seen)  # there is a temporary file, and a kill at this moment would leave it
    assert not [name for names in seen for name in names if name.startswith("tokenizer.")]
    assert [p.name for p in tmp_path.iterdir()] == ["tokenizer.model"]


@pytest.mark.parametrize("shares", [{"ko": -1.0, "en": 2.0}, {"ko": 0.0}])
def test_shares_that_make_no_sense_are_refused(shares):
    with pytest.raises(ValueError, match="shares"):
        tokenizer_training.TokenizerConfig(shares=shares)


def _bare_hugging_face(hugging_face, folder):
    hugging_face.save(folder)
    (folder / "tokenizer_config.json").unlink()
    return folder


def test_bos_and_eos_from_the_models_config_travel_with_the_tokenizer(hugging_face, tmp_path):
    for name in ("model", "saved"):
        (tmp_path / name).mkdir()
    _bare_hugging_face(hugging_face, tmp_path / "model")
    (tmp_path / "model" / "config.json").write_text('{"bos_token_id": 0, "eos_token_id": [1, 4]}')
    tokenizer.load_tokenizer(tmp_path / "model").save(tmp_path / "saved")
    saved = tokenizer.load_tokenizer(tmp_path / "saved")
    assert (saved.bos_id, saved.eos_id, saved.fingerprint) == (0, 1, hugging_face.fingerprint)


@pytest.mark.parametrize(
    "config, word",
    [
        (None, "does not say its bos_token"),
        ('{"bos_token_id": 0, ', "not JSON"),
        ('{"bos_token_id": 0, "eos_token_id": 99999}', "99999 is outside the vocabulary of 600"),
    ],
)
def test_specials_that_cannot_be_told_are_errors(hugging_face, tmp_path, config, word):
    _bare_hugging_face(hugging_face, tmp_path)
    if config is not None:
        (tmp_path / "config.json").write_text(config)
    with pytest.raises(UserError, match=word):
        tokenizer.load_tokenizer(tmp_path)
