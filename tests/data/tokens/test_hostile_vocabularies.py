"""Damaged and hostile vocabularies end in one sentence: no trace of a library in Rust, no crash, nothing read wrongly."""

import base64
import copy
import io
import json
import os
import random

import numpy as np
import pytest
import sentencepiece
import tokenizers

from kanana_jax import cli
from kanana_jax.data import microworld
from kanana_jax.data.tokens import charsmap, panics, sentence_piece, training
from kanana_jax.data.tokens.tokenizer import load_tokenizer
from kanana_jax.errors import UserError

TEXTS = [
    r["text"] for lang in ("ko", "en") for r in microworld.parse_uri(f"microworld://news/{lang}?count=40&size=100")
]
CASES = int(os.environ.get("KANANA_FUZZ", "60"))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    place = tmp_path_factory.mktemp("sound")
    for kind, size in (("bpe", 400), ("unigram", 800)):
        config = training.TokenizerConfig(vocab_size=size, model_type=kind, train_bytes=20_000)
        training.train_tokenizer({"ko": TEXTS}, config, place / kind)
    return place


@pytest.fixture(scope="module")
def normalising():
    """A SentencePiece model with a character map."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=(line for text in TEXTS for line in text.split("\n")), model_writer=model, vocab_size=700,
        byte_fallback=True, normalization_rule_name="nmt_nfkc", minloglevel=2, num_threads=1,
    )  # fmt: skip
    return model.getvalue()


def _written(folder, definition, config):
    folder.mkdir(exist_ok=True)
    text = definition if isinstance(definition, str) else json.dumps(definition, ensure_ascii=False)
    (folder / "tokenizer.json").write_text(text, encoding="utf-8")
    (folder / "tokenizer_config.json").write_bytes(config)
    return folder


def _changed(changes):
    def change(definition):
        definition.update(changes)

    return change


def _map(data):
    return _changed({"normalizer": {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(data).decode()}})


def _huge_id(definition):
    definition["model"]["vocab"]["Ġzq"] = 3_999_999_999


def _nested(part):
    return {"normalizers": [{"type": "NFC"}, part], "pretokenizers": [part], "decoders": [{"type": "Fuse"}, part]}


HOSTILE = {
    "a map that is no base64": _changed({"normalizer": {"type": "Precompiled", "precompiled_charsmap": "?"}}),
    "an empty map": _map(b""),
    "a map that leads outside": _map(b"\x04\0\0\0" + b"\xff" * 4 + b"a\0"),
    "a map of which the trie is cut": _map(b"\xff\xff\0\0" + bytes(100)),
    "a map within a sequence": _changed(
        {"normalizer": {"type": "Sequence", **_nested({"type": "Precompiled", "precompiled_charsmap": "AAAA"})}}
    ),
    "pieces of no length": _changed({"pre_tokenizer": {"type": "FixedLength", "length": 0}}),
    "pieces of no length, in a sequence": _changed(
        {"pre_tokenizer": {"type": "Sequence", **_nested({"type": "FixedLength", "length": 0})}}
    ),
    "ends are stripped": _changed({"decoder": {"type": "Strip", "content": "b", "start": 3, "stop": 3}}),
    "ends are stripped, in a sequence": _changed(
        {"decoder": {"type": "Sequence", **_nested({"type": "Strip", "content": " ", "start": 0, "stop": 1})}}
    ),
    "an id that no model has": _huge_id,
    "a bad expression": _changed(
        {"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "(("}, "behavior": "Removed"}}
    ),
    "an unknown model": _changed({"model": {"type": "Oracle"}}),
    "a prefix longer than pieces": lambda d: d["model"].update(continuing_subword_prefix="#" * 40),
    "a prefix that cuts characters": lambda d: d["model"].update(continuing_subword_prefix="z"),
    "no object": lambda d: d.clear(),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_definitions_end_in_a_sentence(folders, tmp_path, capfd, name):
    definition = json.loads((folders / "bpe" / "tokenizer.json").read_text(encoding="utf-8"))
    HOSTILE[name](definition)
    folder = _written(tmp_path / "x", definition, (folders / "bpe" / "tokenizer_config.json").read_bytes())
    with pytest.raises(UserError, match="tokenizer.json") as told:
        load_tokenizer(folder)
    assert "\n" not in str(told.value) and capfd.readouterr().err == ""


def test_a_unigram_with_an_empty_piece_is_refused_and_not_run_for_ever(folders, tmp_path):
    definition = json.loads((folders / "unigram" / "tokenizer.json").read_text(encoding="utf-8"))
    definition["model"]["vocab"].append(["", 5.0])
    config = (folders / "unigram" / "tokenizer_config.json").read_bytes()
    with pytest.raises(UserError, match="empty piece"):
        load_tokenizer(_written(tmp_path / "x", definition, config))


def _mutated(value, rng):
    """One place somewhere inside becomes something else."""
    odd = [None, [], {}, "", "x", -1, 0, 0.5, 2**31, 2**32 - 1, 2**40, True, {"type": "Sequence"}, ["a", "b"]]
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(list(value))
        return {**value, key: _mutated(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.9:
        place = rng.randrange(len(value))
        return [*value[:place], _mutated(value[place], rng), *value[place + 1 :]]
    return copy.deepcopy(rng.choice(odd))


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_damaged_definitions_are_refused_or_work(folders, tmp_path, capfd, kind):
    text = (folders / kind / "tokenizer.json").read_text(encoding="utf-8")
    config = (folders / kind / "tokenizer_config.json").read_bytes()
    definition, refused = json.loads(text), 0
    for seed in range(CASES):
        rng = random.Random(seed)
        damaged = text[: rng.randrange(len(text))] if seed % 8 == 0 else _mutated(definition, rng)
        folder = _written(tmp_path / "x", damaged, config)
        try:
            found = load_tokenizer(folder)
            for probe in (TEXTS[0], "", " \n a", "<s>가\u0301"):
                found.decode(found.encode(probe))
                found.encode_with_symbols(probe)
            found.decode(range(-2, found.vocab_size % 10_000 + 5))
        except UserError:
            refused += 1
    assert refused > CASES // 8 and capfd.readouterr().err == ""


def test_character_maps(normalising):
    """A whole one is sound; of damaged ones, those that are called sound do not make the library fail."""
    data = sentence_piece.parse(normalising).normalizer_spec.precompiled_charsmap
    assert charsmap.sound(data) and not charsmap.sound(data[:-1]) and not charsmap.sound(data[:100])
    every = "".join(map(chr, [*range(1, 0xD800), *range(0xE000, 0x11000)]))
    verdicts = []
    for seed in range(12):
        rng, damaged = np.random.default_rng(seed), bytearray(data)
        size = int.from_bytes(data[:4], "little")  # of the trie
        for place in rng.integers(4, 4 + size, 1) if seed % 2 else rng.integers(4, len(data), 200):
            damaged[place] = rng.integers(256)
        verdicts.append(charsmap.sound(bytes(damaged)))
        if verdicts[-1]:
            tokenizers.normalizers.Precompiled(bytes(damaged)).normalize_str(every)
    assert set(verdicts) == {False, True}


def test_damaged_sentencepiece_models_are_refused_or_work(normalising, tmp_path, capfd):
    file = tmp_path / "tokenizer.model"
    for seed in range(CASES):
        rng, damaged = random.Random(seed), bytearray(normalising)
        if seed % 3 == 0:
            damaged = damaged[: rng.randrange(len(damaged))]
        for _ in range(rng.randint(1, 20)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        file.write_bytes(damaged)
        try:
            found = load_tokenizer(tmp_path)
            found.decode(found.encode(TEXTS[0]))
            found.decode(range(-2, found.vocab_size + 5))
        except UserError as error:
            assert "\n" not in str(error)
    assert capfd.readouterr().err == ""


def test_a_panic_is_told_and_not_printed_and_other_lines_are_kept(capfd):
    with (
        pytest.raises(UserError, match=r"^the decoder fails \(.+\): use another$"),
        panics.as_errors("the decoder fails", "use another"),
        panics.quiet(),
    ):
        os.write(2, b"a line before\n")
        tokenizers.decoders.Strip("a", 5, 5).decode(["aa"])
    assert capfd.readouterr().err == ""
    with panics.quiet():
        os.write(2, b"a line of another thread\n")
        assert capfd.readouterr().err == ""
    assert capfd.readouterr().err == "a line of another thread\n"
    for error in (KeyboardInterrupt, MemoryError, SystemExit):
        with pytest.raises(error), panics.as_errors("it fails"):
            raise error


def test_half_a_surrogate_pair_is_told(folders):
    for kind in ("bpe", "unigram"):
        found = load_tokenizer(folders / kind)
        for encode in (found.encode, found.encode_with_symbols, lambda text: found.encode_batch(["a", text])):
            with pytest.raises(UserError, match="cannot encode.*surrogate"):
                encode("a\ud800b")


def test_a_panic_of_any_library_is_one_line_of_the_command(monkeypatch, capfd):
    def panic(options, overrides, command):
        tokenizers.decoders.Strip("a", 5, 5).decode(["aa"])

    monkeypatch.setattr(cli.models, "_chat", panic)
    assert cli.main(["chat", "nowhere"]) == 1
    (line,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("kanana: ")]
    assert "PanicException" in line
