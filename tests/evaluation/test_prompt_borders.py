"""Where a prompt ends and its choice begins, in tokens, and prompts that are longer than the model."""

import dataclasses
import json

import jax
import pytest
import tokenizers
from random_model import folder

pytest.importorskip("lm_eval")

from lm_eval.api.instance import Instance  # noqa: E402
from lm_eval.api.model import TemplateLM  # noqa: E402

from kanana_jax.data.tokens.tokenizer import load_tokenizer  # noqa: E402
from kanana_jax.errors import UserError  # noqa: E402
from kanana_jax.evaluation.harness import HarnessModel  # noqa: E402
from kanana_jax.inference.session import Session  # noqa: E402


@pytest.fixture(scope="module")
def model(folder):
    return HarnessModel(Session.load(str(folder), devices=jax.devices()[:1]), batch_size=4, max_new_tokens=40)


def _ask(kind, *arguments):
    return [Instance(request_type=kind, doc={}, arguments=a, idx=0) for a in arguments]


def test_a_token_across_the_border_of_context_and_choice(model, tmp_path):
    """A vocabulary whose pieces reach over spaces and ends of words, as the harness parts both; where that leaves
    nothing of the choice, on which the harness ends, the choice alone."""
    bpe = tokenizers.Tokenizer(tokenizers.models.BPE())
    bpe.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bpe.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    special = ["<|begin_of_text|>", "<|end_of_text|>"]
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=390, initial_alphabet=alphabet, special_tokens=special)
    bpe.train_from_iterator(["질문: 하늘은?\n답: 파랑입니다", "질문: 물은?\n답: 아니오", "답: 예"] * 50, trainer)
    bpe.save(str(tmp_path / "tokenizer.json"))
    names = dict(zip(("bos_token", "eos_token"), special))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(names))
    other = HarnessModel(dataclasses.replace(model.session, tokenizer=load_tokenizer(tmp_path)), batch_size=8)
    pairs = [
        (c, a)
        for c in ("질문: 하늘은?\n답:", "질문: 물은?\n답: 아", "답", "질", "하")
        for a in (" 파랑", "니오", ": 예", "문", "늘은")
    ]
    joined = crossed = 0
    for context, choice in pairs:
        before, after = other._encode_pair(context, choice)
        theirs = TemplateLM._encode_pair(other, context, choice)
        alone = other.tok_encode(choice, add_special_tokens=False)
        whole, head = other.tok_encode(context + choice), other.tok_encode(context)
        joined += not theirs[1]
        crossed += whole[: len(head)] != head
        assert (before, after) == (theirs if theirs[1] else (head, alone)) and after
    assert joined >= 2 and crossed > joined
    assert all(score < 0 for score, _ in other.loglikelihood(_ask("loglikelihood", *pairs)))


@pytest.mark.parametrize("context, choice", [("a", ""), ("", ""), ("", "<|begin_of_text|>"), ("a", "가" * 600)])
def test_choices_that_cannot_be_scored_are_told_before_any_is(model, monkeypatch, context, choice):
    monkeypatch.setattr(model, "_score", lambda *_: pytest.fail("something was scored"))
    with pytest.raises(UserError, match="a task asks for the likelihood of .* correct the task"):
        model.loglikelihood(_ask("loglikelihood", ("a", "b"), (context, choice)))


def test_prompts_that_lose_their_beginning_keep_bos_and_are_told(model):
    """Generation and choices alike: the end of a prompt behind BOS, and its document noted with its task."""
    bos, long = model.prefix_token_id, "가나다 " * 400
    ids = model.tok_encode(long)
    assert model._fitting(ids, 20) == [bos, *ids[-19:]] and model._fitting(ids[1:], 20) == ids[-20:]
    assert model._fitting(ids, len(ids)) == ids and model._fitting(ids, 1) == ids[-1:]
    model.cut.clear()
    metadata = [("task", 0, 1), ("task", 3, 1)]
    options = {"until": [], "max_gen_toks": 4}
    cut, kept = model.generate_until(
        [
            Instance("generate_until", {}, arguments, 0, place)
            for arguments, place in zip([(long, options), ("한빛", options)], metadata)
        ]
    )
    (short,) = model.generate_until(_ask("generate_until", (model.session.tokenizer.decode(ids[-507:]), options)))
    assert model.cut == {"task": {0}} and kept != "" and cut == short
    (scored,) = model.loglikelihood([Instance("loglikelihood", {}, (long, "라"), 0, ("other", 2, 1))])
    before, after = model._encode_pair(long, "라")
    kept_ids = [bos, *before[len(before) - 512 + len(after) :]]
    assert model._loglikelihood_tokens([(None, kept_ids, after)]) == [scored] and len(kept_ids) + len(after) == 513
    assert model.cut == {"task": {0}, "other": {2}}
    with pytest.raises(UserError, match="-1 new tokens"):
        model.generate_until(_ask("generate_until", ("a", {"until": [], "max_gen_toks": -1})))
    assert model.generate_until(_ask("generate_until", ("a", {"until": [], "max_gen_toks": 0}))) == [""]
