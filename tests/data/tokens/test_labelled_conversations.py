"""Forty conversations in the forms of six families, whose text and loss are written by hand, exact to the token.

In `labelled/conversations.jsonl`, ⟦ ⟧ are around the text that carries loss, ‹ › around symbols of the template that a
message spells and that are text. A vocabulary of bytes makes a token of each byte and of each symbol, so that what is
expected needs no tokenizer.
"""

import json
import pathlib
import re

import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from kanana_jax.data.stream import packing
from kanana_jax.data.stream.encode import ConversationEncoder, Refused
from kanana_jax.data.tokens.tokenizer import load_tokenizer

HERE = pathlib.Path(__file__).parent / "labelled"
CASES = [json.loads(line) for line in (HERE / "conversations.jsonl").read_text(encoding="utf-8").splitlines()]
SPECIAL = [
    *("<s>", "</s>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|im_start|>", "<|im_end|>"),
    *("<start_of_turn>", "<end_of_turn>", "[|endofturn|]", "[INST]", "[/INST]"),
]
WORDS = ["<think>", "</think>"]  # tokens that are no symbols: text that spells them is them
TEMPLATES = sorted(path.stem for path in HERE.glob("*.jinja"))


def _letters():
    """The letter by which byte-level vocabularies write each byte (GPT-2)."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [chr(b) if b in plain else chr(256 + b - sum(p < b for p in plain)) for b in range(256)]


def _bytes():
    return Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(_letters())}, merges=[]))


def _merges():
    """A vocabulary whose tokens may lie across the borders of words, line ends among them."""
    made = _bytes()
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    trainer = trainers.BpeTrainer(vocab_size=420, initial_alphabet=_letters(), show_progress=False)
    made.train_from_iterator([content for case in CASES for _, content, *_ in case["messages"]], trainer)
    return made


def _folder(made, template, folder):
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(SPECIAL)
    made.add_tokens([AddedToken(word, special=False, normalized=False) for word in WORDS])
    made.save(str(folder / "tokenizer.json"))
    named = {"bos_token": "<s>", "eos_token": "</s>", "tokenizer_class": "PreTrainedTokenizerFast"}
    (folder / "tokenizer_config.json").write_text(json.dumps(named), encoding="utf-8")
    (folder / "chat_template.jinja").write_text((HERE / f"{template}.jinja").read_text("utf-8"), encoding="utf-8")
    return load_tokenizer(folder)


def _record(case):
    messages = [{"role": role, "content": said, **dict(*more)} for role, said, *more in case["messages"]]
    return {"id": "1", "messages": messages, **({"tools": case["tools"]} if "tools" in case else {})}


def _expected(label):
    """Ids and weights of a label."""
    ids, weights, loss, text = [], [], 0, 0
    symbol = "|".join(map(re.escape, sorted([*SPECIAL, *WORDS], key=len, reverse=True)))
    for piece in re.findall(f"{symbol}|.", label, re.DOTALL):
        loss, text = loss + (piece == "⟦") - (piece == "⟧"), text + (piece == "‹") - (piece == "›")
        if piece in "⟦⟧‹›":
            continue
        whole = piece in WORDS or (piece in SPECIAL and not text)
        ids += [256 + [*SPECIAL, *WORDS].index(piece)] if whole else piece.encode()
        weights += [loss] * (len(ids) - len(weights))
    assert not loss and not text
    return ids, weights


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory):
    made = {}
    for kind, build in (("bytes", _bytes), ("merges", _merges)):
        for template in TEMPLATES:
            made[kind, template] = _folder(build(), template, tmp_path_factory.mktemp(kind))
    return made


def test_there_are_forty_in_six_forms():
    assert len(CASES) == 40 and {case["template"] for case in CASES} == set(TEMPLATES) and len(TEMPLATES) == 6


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['template']}: {case['about']}")
def test_tokens_and_weights_are_those_written_by_hand(case, tokenizers):
    found = ConversationEncoder(tokenizers["bytes", case["template"]], case.get("row", 0))(_record(case))
    if "refused" in case:
        assert found == Refused(case["refused"])
        return
    assert not isinstance(found, Refused) and len(found) == len(case["label"])
    for example, label in zip(found, case["label"], strict=True):
        ids, weights = _expected(label)
        assert example.tokens.tolist() == ids and example.weights.tolist() == weights
    if "row" in case:  # what a row is too short for is cut, and the rest keeps its weights
        (ids, weights), T = _expected(case["label"][0]), case["row"]
        rows = packing.pack([found], T, whole=True)
        assert rows.targets[0].tolist() == ids[1 : T + 1] and rows.weights[0].tolist() == weights[1 : T + 1]
        assert 0 < rows.weights.sum() < sum(weights)


@pytest.mark.parametrize("template", TEMPLATES)
def test_tokens_of_several_letters_carry_loss_where_they_hold_what_is_said(template, tokenizers):
    """Of a vocabulary with merges: the text that carries loss is what is said, and not a token more than it needs."""
    encode = ConversationEncoder(tokenizers["merges", template])
    library = Tokenizer.from_file(str(encode.tokenizer._file))
    for case in CASES:
        if case["template"] != template or "refused" in case or "‹" in str(case.get("label")):
            continue
        for example, label in zip(encode(_record(case)), case["label"], strict=True):
            text = label.replace("⟦", "").replace("⟧", "")
            theirs = library.encode(text, add_special_tokens=False)
            spans = [
                range(match.start() - 2 * before, match.end() - 2 * before - 2)
                for before, match in enumerate(re.finditer("⟦(.*?)⟧", label, re.DOTALL))
            ]
            want = [any(begin < span.stop and end > span.start for span in spans) for begin, end in theirs.offsets]
            assert example.tokens.tolist() == theirs.ids
            np.testing.assert_array_equal(example.weights, want)
