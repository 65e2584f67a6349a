"""`kanana data show`: the text of rows as they were written, with what carries loss marked, and records by reason."""

import json
import re

import numpy as np
import own_models
import pytest
from conftest import ROOT

from kanana_jax.cli import main
from kanana_jax.data import microworld
from kanana_jax.data.stream import packing, spelling
from kanana_jax.data.stream.encode import ConversationEncoder, Example, TextEncoder
from kanana_jax.data.tokens.tokenizer import load_tokenizer

HEAD, END = "<|start_header_id|>{}<|end_header_id|>\n\n", "<|eot_id|>"
SMALL = ["--config.{0}.train.seq_len=192", "--config.{0}.train.batch_tokens=768"]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return own_models.write(tmp_path_factory.mktemp("base"), "bpe", microworld.World.create(0, 100))


def _chat(number):
    asked = [f"{number} 더하기 {number}는?", "And?"]
    answers = [f"{2 * number}이다.\n끝 😀 \x1b[31m", "Seven."]
    turns = [("user", asked[0]), ("assistant", answers[0]), ("user", asked[1]), ("assistant", answers[1])]
    return [{"role": role, "content": content} for role, content in turns]


def test_parts_are_the_template_and_the_answers_carry_loss(base):
    tokenizer = load_tokenizer(base)
    made = [ConversationEncoder(tokenizer)({"id": str(n), "messages": _chat(n)}) for n in range(3)]
    rows = packing.pack(made, 256, whole=True)
    found = [s for row in range(len(rows.inputs)) for s in spelling.segments(rows, row, tokenizer)]
    assert len(found) == 3
    for number, segment in enumerate(found):
        parts = [("<|begin_of_text|>", 0)]
        for turn in _chat(number):
            said = turn["content"].replace("\x1b", "\\x1b") + END
            learnt = turn["role"] == "assistant"
            parts += [(HEAD.format(turn["role"]), 0), (said, int(learnt))]
        assert "".join(p.text for p in segment.parts) == "".join(text for text, _ in parts)
        answers = "".join(text for text, learnt in parts if learnt)
        assert "".join(p.text for p in segment.parts if p.weight) == answers
        assert segment.trained == sum(np.count_nonzero(weights) for _, weights in made[number])


def test_a_text_that_a_row_cuts_is_read_in_both(base):
    tokenizer = load_tokenizer(base)
    text = "한빛시는 바다에 가까운 도시이다. " * 4
    (example,) = TextEncoder(tokenizer)({"id": "1", "text": text})
    rows = packing.pack([(example,)], 16)
    found = [spelling.segments(rows, row, tokenizer) for row in range(len(rows.inputs))]
    # Every token but the first is learnt once, over all rows; together they spell the text.
    assert sum(s.trained for segments in found for s in segments) == len(example.tokens) - 1
    learnt = [rows.targets[row][rows.weights[row] > 0].tolist() for row in range(len(found))]
    assert "".join(p.text for segments in found for s in segments for p in s.parts if p.weight).startswith("한")
    assert tokenizer.decode(sum(learnt, [])) == text


def test_fractional_weights_stand_apart(base):
    tokenizer = load_tokenizer(base)
    tokens = np.asarray([*tokenizer.encode("가나다"), *tokenizer.encode("라마")], np.int32)
    half = len(tokenizer.encode("가나다"))
    weights = np.r_[np.full(half, 0.5), np.ones(len(tokens) - half)].astype(np.float32)
    rows = packing.pack([(Example(tokens, weights),)], 64, whole=True)
    (segment,) = spelling.segments(rows, 0, tokenizer)
    assert [p.weight for p in segment.parts] == [0.0, 0.5, 1.0]  # a first token is no target
    assert segment.parts[-1].text == "라마" and "".join(p.text for p in segment.parts) == "가나다라마"


def _show(capsys, name, base, file, *more):
    config = f"{ROOT / 'configs'}/{name}.py:{base.parent},{file}"
    assert main(["data", "show", "--config", config, *(part.format(name) for part in SMALL), *more]) == 0
    return capsys.readouterr().out


def test_the_verb_shows_pairs_and_counts_what_is_left_out(base, tmp_path, capsys, monkeypatch):
    pairs = [{"prompt": f"{n}은?", "chosen": f"{n}이다.", "rejected": f"글쎄, {n + 1}인가?"} for n in range(30)]
    pairs += [{"prompt": "?", "chosen": "네.", "rejected": "네."}] * 7
    file = tmp_path / "pairs.jsonl"
    file.write_text("\n".join(json.dumps(pair, ensure_ascii=False) for pair in pairs))
    out = _show(capsys, "dpo", base, file, "--rows", "2", "--all", "--config.sources.pairs.holdout=0.0")
    prompts, answers = [], []
    for head, body in re.findall(r"^--- segment \d+: (.*?)\n(.*?)(?=^---|^row|^records|\n\n[a-z])", out, re.M | re.S):
        prompts.append((head.split(",")[0], int(re.search(r"(\d+)은\?", body)[1])))
        answers += re.findall(r"\{\+(.*?)\+\}", body, re.S)
    assert len(prompts) >= 4 and len(answers) == len(prompts)
    for (kind, number), answer in zip(prompts, answers):
        assert answer == (f"{number}이다." if kind == "chosen" else f"글쎄, {number + 1}인가?") + END
    assert [kind for kind, _ in prompts] == ["chosen", "rejected"] * (len(prompts) // 2)
    assert "pairs: 37 records, 30 trained on" in out and "7 identical_answers" in out
    monkeypatch.delenv("NO_COLOR", raising=False)
    out = _show(capsys, "dpo", base, file, "--rows", "1", "--color", "always")
    assert "\x1b[32m" in out and "{+" not in out


def test_a_stage_that_trains_nothing_has_no_rows(base, tmp_path, capsys):
    (tmp_path / "c.jsonl").write_text(json.dumps({"messages": _chat(1)}))
    config = f"{ROOT / 'configs'}/sft.py:{base.parent},{tmp_path / 'c.jsonl'}"
    assert main(["data", "show", "--config", config, "--stage", "sfd"]) == 2
    assert "did you mean 'sft'" in capsys.readouterr().err
