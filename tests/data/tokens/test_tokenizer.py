"""Tokenizers are exact on any text, reproducible, and fair to languages."""

import dataclasses
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import sentencepiece
import tokenizers
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kanana_jax import cli
from kanana_jax.data import microworld
from kanana_jax.data.tokens import chat, hugging_face, specials, tokenizer, training
from kanana_jax.errors import UserError

TEXTS = {
    lang: [r["text"] for r in microworld.parse_uri(f"microworld://news/{lang}?count=300&size=100")]
    for lang in ("ko", "en")
}
CONFIG = training.TokenizerConfig(vocab_size=900, train_bytes=60_000)


CONFIGS = {"bpe": CONFIG, "unigram": dataclasses.replace(CONFIG, model_type="unigram")}


@pytest.fixture(scope="module")
def vocabularies(tmp_path_factory):
    """One of each kind that is trained here."""
    folder = tmp_path_factory.mktemp("vocabularies")
    return {kind: training.train_tokenizer(TEXTS, config, folder / kind) for kind, config in CONFIGS.items()}


@pytest.fixture(scope="module", params=CONFIGS)
def trained(request, vocabularies):
    return vocabularies[request.param]


ODD = [
    "",
    "  두 칸\n\n\t탭 각 👍 e\u0301 <s> <|eot_id|> 12345 ",
    "\u3000\x00\u200b\ufffd",
    "\u2581 a\u2581\u2581b \u2581\n\u2581각",
    "<unk> </s> <0x41> <0x0A> <|begin_of_text|><|reserved_1|>",
    "Ġ Ċ ▁▁ it's\r\n\r\n9876543210",
]


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
@settings(max_examples=200, deadline=None)
def test_round_trips_are_exact(vocabularies, text):
    for trained in vocabularies.values():
        _is_exact(trained, text)


@pytest.mark.parametrize("text", ["값은 👍👍🏽 7이다", *ODD])
def test_the_letters_that_tokens_hold_are_told(trained, text):
    ids, places = trained.encode_placed(text, symbols=False)
    np.testing.assert_array_equal(ids, trained.encode(text))
    for i, (begin, end) in enumerate(places):
        # What is decoded of the tokens up to it ends within them, or in the middle of the next letter.
        before, until = (trained.decode(ids[:n]).rstrip("\ufffd") for n in (i, i + 1))
        assert text.startswith(until) and begin <= len(before) and len(until) <= end <= len(text)


@pytest.mark.parametrize("dummy", [True, False])
def test_sentence_pieces_hold_letters_too(dummy, tmp_path):
    """Of a model that puts a space before a text or not; letters in bytes, runs of them, and its own sign for a space."""
    with (tmp_path / "tokenizer.model").open("wb") as model:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(["the cat is here", "값은 7이다"] * 20), model_writer=model, vocab_size=300,
            byte_fallback=True, add_dummy_prefix=dummy, normalization_rule_name="identity", minloglevel=2,
            remove_extra_whitespaces=False, hard_vocab_limit=False, num_threads=1,
        )  # fmt: skip
    read = tokenizer.load_tokenizer(tmp_path)
    text = "cat 👍👍🏽 값\u2581은é</s> the  7"
    ids, places = read.encode_placed(text, symbols=True)
    pieces = [read._processor.id_to_piece(int(i)) for i in ids]
    by_letter = [sum(begin <= at < end for begin, end in places) for at in range(len(text))]
    spelt = "👍🏽é" if dummy else "👍🏽é\u2581"
    assert by_letter == [len(x.encode()) if x in spelt else by_letter[i] for i, x in enumerate(text)]
    for piece, (begin, end) in zip(pieces, places, strict=True):
        if not piece.startswith("<0x") and (begin or piece != "\u2581"):  # the space that is put before a text
            held = text[begin:end].replace("\u2581", " ")
            assert held in (piece.replace("\u2581", " "), piece.removeprefix("\u2581"))
    assert set(by_letter) >= {1, 2, 4}


@pytest.mark.parametrize("text", ODD)
def test_texts_that_look_like_pieces_are_text(trained, text):
    _is_exact(trained, text)


def _is_exact(trained, text):
    ids = trained.encode(text)
    assert trained.decode(ids) == trained.decode(trained.encode_batch([text, "b"])[0]) == text
    control = [trained.bos_id, trained.eos_id, *(trained.token_id(c) for c in specials.CONTROL)]
    assert not set(ids.tolist()) & set(control)


def test_training_twice_gives_the_same_bytes(trained, tmp_path):
    """In another process, with another number of threads, from texts that come in other pieces of memory."""
    kind = trained._folder.name
    code = f"""
import pathlib, sys
from kanana_jax.data import microworld
from kanana_jax.data.tokens import training
uris = {{lang: f"microworld://news/{{lang}}?count=300&size=100" for lang in ("ko", "en")}}
texts = {{lang: [r["text"] for r in microworld.parse_uri(uri)] for lang, uri in uris.items()}}
config = training.TokenizerConfig(vocab_size=900, train_bytes=60_000, model_type="{kind}")
training.train_tokenizer(texts, config, pathlib.Path(sys.argv[1]))
"""
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], check=True, env={**os.environ, "RAYON_NUM_THREADS": "1"}
    )
    files = sorted(p.name for p in trained._folder.iterdir())
    assert files == sorted(p.name for p in tmp_path.iterdir()) and "tokenizer.json" in files
    assert all((trained._folder / name).read_bytes() == (tmp_path / name).read_bytes() for name in files)


def test_what_other_tools_read_are_our_ids(trained):
    """The library on the folder's own file, with the BOS that its template puts there; symbols where they are spelt."""
    theirs = tokenizers.Tokenizer.from_file(str(trained._folder / "tokenizer.json"))
    for text in (*TEXTS["ko"][:20], *TEXTS["en"][:20], *ODD):
        assert theirs.encode(text).ids == [trained.bos_id, *trained.encode_with_symbols(text)]
        if not any(token.content in text for token in theirs.get_added_tokens_decoder().values()):
            assert trained.encode_with_symbols(text).tolist() == trained.encode(text).tolist()
    config = json.loads((trained._folder / "tokenizer_config.json").read_text())
    assert [theirs.token_to_id(config[name]) for name in ("bos_token", "eos_token")] == [trained.bos_id, trained.eos_id]
    generation = json.loads((trained._folder / "generation_config.json").read_text())
    assert generation["eos_token_id"] == [trained.eos_id, trained.token_id("<|eot_id|>")]


def test_the_chat_template_of_other_tools_gives_our_ids(trained):
    jinja2 = pytest.importorskip("jinja2")
    template = jinja2.Template((trained._folder / "chat_template.jinja").read_text())
    bos = json.loads((trained._folder / "tokenizer_config.json").read_text())["bos_token"]
    messages = [{"role": "system", "content": " 짧게 "}, {"role": "user", "content": "hi\n"}]
    text = template.render(messages=messages, bos_token=bos, add_generation_prompt=True)
    assert trained.encode_with_symbols(text).tolist() == chat.encode_chat(trained, messages).tolist()


def test_digits_and_blanks_are_cut_as_by_llama_3(vocabularies):
    """At most three digits from the left, line ends apart from words, one blank with the word after it."""
    bpe = vocabularies["bpe"]
    for parts in (
        ["123", "456", "7"],
        ["서울", "의"][:1] + [" 값"],
        ["a", "\n\n", "b"],
        ["a", "  ", " b"],
        [" it", "'s"],
    ):
        assert bpe.encode("".join(parts)).tolist() == [i for p in parts for i in bpe.encode(p).tolist()], parts


def test_both_languages_are_served(trained):
    for lang, texts in TEXTS.items():
        text = "".join(texts[:20])
        assert len(trained.encode(text)) < (1.1 if lang == "ko" else 0.5) * len(text)


def test_documents_have_bos_and_eos_once(trained):
    ids = tokenizer.encode_document(trained, TEXTS["ko"][0])
    assert ids[0] == trained.bos_id and ids[-1] == trained.eos_id
    assert not {trained.bos_id, trained.eos_id} & set(ids[1:-1].tolist())


@pytest.mark.parametrize("kind, size", [("bpe", 100_000), ("unigram", 300)])
def test_a_vocabulary_that_the_text_does_not_give_and_a_missing_language_are_errors(tmp_path, kind, size):
    config = training.TokenizerConfig(vocab_size=size, train_bytes=9999, model_type=kind)
    with pytest.raises(UserError, match=f"vocab_size {size}"):
        training.train_tokenizer(TEXTS, config, tmp_path)
    with pytest.raises(UserError, match="'ja'"):
        training.train_tokenizer(TEXTS, dataclasses.replace(CONFIGS[kind], shares={"ja": 1.0}), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
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
def test_hugging_face_round_trip_and_specials_stay_text(foreign, text):
    ids = foreign.encode(text)
    assert foreign.decode(ids) == text
    assert foreign.token_id("<|eot_id|>") not in ids.tolist()


def test_batches_equal_singles(foreign, trained):
    for t in (foreign, trained):
        for a, b in zip(t.encode_batch(TEXTS["ko"][:5]), [t.encode(x) for x in TEXTS["ko"][:5]]):
            np.testing.assert_array_equal(a, b)


def test_saved_tokenizers_load_again(foreign, trained, tmp_path):
    for name, t in (("a", foreign), ("b", trained)):
        (tmp_path / name).mkdir()
        t.save(tmp_path / name)
        files = [{p.name: p.read_bytes() for p in folder.iterdir()} for folder in (t._folder, tmp_path / name)]
        assert files[0] == files[1]
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


def test_chat_format_is_llama_3s(foreign, trained):
    for t in (foreign, trained):
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
    with pytest.raises(UserError, match="role 'narrator'"):
        chat.encode_chat(trained, [{"role": "narrator", "content": "x"}])


@pytest.mark.parametrize("kind", CONFIGS)
def test_documents_of_one_long_line_train_too(tmp_path, kind):
    """SentencePiece leaves out lines beyond its limit: a corpus of such documents must still work."""
    long = {lang: [" ".join(t.replace("\n", " ") for t in texts)] for lang, texts in TEXTS.items()}
    assert all(len(t.encode()) > 2 * training.MAX_LINE_BYTES for texts in long.values() for t in texts)
    assert training.train_tokenizer(long, CONFIGS[kind], tmp_path).vocab_size == 900


@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("texts", [[], TEXTS["ko"]], ids=["none", "an iterator that ends"])
def test_a_language_without_text_is_named(tmp_path, texts, kind):
    config = dataclasses.replace(CONFIGS[kind], train_bytes=1_000_000)
    with pytest.raises(UserError, match="^language 'ko' has no text to train the tokenizer on$"):
        training.train_tokenizer({"ko": iter(texts), "en": TEXTS["en"]}, config, tmp_path)
    assert not list(tmp_path.iterdir())


def test_what_makes_a_folder_a_tokenizer_is_written_last(tmp_path, monkeypatch):
    """A run that is killed while it trains or writes leaves nothing that looks like a tokenizer."""
    original = hugging_face.write

    def write(target, data):
        assert not tokenizer.holds_tokenizer(tmp_path)
        original(target, data)

    monkeypatch.setattr(hugging_face, "write", write)
    training.train_tokenizer(TEXTS, CONFIG, tmp_path)
    assert tokenizer.holds_tokenizer(tmp_path)


def test_shares_are_shares_of_bytes(tmp_path):
    seen = dict.fromkeys(TEXTS, 0)
    for text in training._within(TEXTS, {"ko": 30_000, "en": 10_000.5}):
        seen["ko" if any("가" <= c <= "힣" for c in text) else "en"] += len(text.encode()) + 1
    assert abs(seen["ko"] - 30_000) < 5 and abs(seen["en"] - 10_000) < 5


def test_a_small_corpus_is_not_repeated_to_the_budget():
    """The language with the most text is read once, the other as often as equal parts ask for."""
    texts = {"ko": ["가" * 99] * 10, "en": ["x" * 99] * 10}  # 298 and 100 bytes each
    config = training.TokenizerConfig(vocab_size=300, train_bytes=100_000_000)
    told = []
    found = training.sizes(texts, config, lambda *told_now: told.append(told_now))
    assert found == {"ko": 2980, "en": 1000} and told[-1] == ("en", 1000, 50_000_000)
    config = training.without_repeats(config, found)
    assert config.train_bytes == 2 * 2980
    read = list(training._within(texts, training._budgets(texts, config)))
    assert sum(text[0] == "가" for text in read) == 10 and 29 <= sum(text[0] == "x" for text in read) <= 31
    large = training.TokenizerConfig(vocab_size=300, train_bytes=1000)
    assert training.without_repeats(large, training.sizes(texts, large, lambda *_: None)) == large


def test_the_verb_says_how_much_it_read(tmp_path, capsys):
    for lang, texts in TEXTS.items():
        (tmp_path / f"{lang}.txt").write_text("\n".join(texts))
    inputs = [f"{lang}={tmp_path / lang}.txt" for lang in TEXTS]
    assert (
        cli.main(["tokenizer", "train", "--input", *inputs, "--output", str(tmp_path / "v"), "--vocab-size", "700"])
        == 0
    )
    told = capsys.readouterr().err
    sizes = {lang: (tmp_path / f"{lang}.txt").stat().st_size for lang in TEXTS}
    assert all(f"{lang} {size / 1e6:.1f} MB" in told for lang, size in sizes.items())
    assert f"training 700 pieces on {2 * max(sizes.values()) / 1e6:.1f} MB" in told and "trained in" in told


@pytest.mark.parametrize("shares", [{"ko": -1.0, "en": 2.0}, {"ko": 0.0}])
def test_shares_that_make_no_sense_are_refused(shares):
    with pytest.raises(ValueError, match="shares"):
        training.TokenizerConfig(shares=shares)


def _bare_hugging_face(foreign, folder):
    foreign.save(folder)
    (folder / "tokenizer_config.json").unlink()
    return folder


def test_bos_and_eos_from_the_models_config_travel_with_the_tokenizer(foreign, tmp_path):
    for name in ("model", "saved"):
        (tmp_path / name).mkdir()
    _bare_hugging_face(foreign, tmp_path / "model")
    (tmp_path / "model" / "config.json").write_text('{"bos_token_id": 0, "eos_token_id": [1, 4]}')
    tokenizer.load_tokenizer(tmp_path / "model").save(tmp_path / "saved")
    saved = tokenizer.load_tokenizer(tmp_path / "saved")
    assert (saved.bos_id, saved.eos_id, saved.fingerprint) == (0, 1, foreign.fingerprint)


@pytest.mark.parametrize(
    "config, word",
    [
        (None, "does not name its eos_token"),
        ('{"bos_token_id": 0, ', "not JSON"),
        ('{"bos_token_id": 0, "eos_token_id": 99999}', "99999 is outside the vocabulary of 600"),
    ],
)
def test_specials_that_cannot_be_told_are_errors(foreign, tmp_path, config, word):
    _bare_hugging_face(foreign, tmp_path)
    if config is not None:
        (tmp_path / "config.json").write_text(config)
    with pytest.raises(UserError, match=word):
        tokenizer.load_tokenizer(tmp_path)


def test_the_verb_writes_a_folder_and_names_what_it_cannot_do(tmp_path, capsys):
    for lang, texts in TEXTS.items():
        (tmp_path / f"{lang}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), "utf-8")
    inputs = [f"{lang}={tmp_path / lang}.jsonl" for lang in TEXTS]

    def call(*options):
        code = cli.main(["tokenizer", "train", "--input", *inputs, "--output", str(tmp_path / "out"), *options])
        return code, capsys.readouterr()

    code, told = call("--vocab-size", "500", "--train-bytes", "40000")
    assert code == 0 and told.out.strip() == str(tmp_path / "out" / "tokenizer.json")
    assert tokenizer.load_tokenizer(tmp_path / "out").vocab_size == 500
    assert json.loads((tmp_path / "out" / "tokenizer.json").read_text("utf-8"))["model"]["type"] == "BPE"
    for option, value in (("--vocab-size", "299"), ("--train-bytes", "0")):
        code, told = call(option, value)
        assert code == 2 and option in told.err
