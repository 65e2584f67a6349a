"""Text out of a model folder: options without sense are told before a model is loaded; chats stream, BOS is an override."""

import io

import jax
import own_models
import pytest

from kanana_jax import cli
from kanana_jax.data import microworld
from kanana_jax.errors import UserError
from kanana_jax.inference.sampling import SamplingConfig
from kanana_jax.inference.session import Session


@pytest.mark.parametrize(
    "options, told",
    [
        (["--max-new-tokens", "-3"], "--max-new-tokens must be at least 0, not -3"),
        (["--temperature", "nan"], "temperature must be 0 (greedy) or a number of at least 1e-6, not nan"),
        (["--temperature", "inf"], "not inf"),
        (["--temperature", "-1"], "not -1.0"),
        (["--temperature", "1e-30"], "not 1e-30"),
        (["--top-p", "nan"], "0 < top_p <= 1"),
        (["--top-p", "0"], "0 < top_p <= 1"),
        (["--top-p", "1.5"], "0 < top_p <= 1"),
        (["--top-k", "-1"], "top_k >= 0"),
        (["--seed", "99999999999999999999"], "--seed must be between 0"),
    ],
)
@pytest.mark.parametrize("verb", [["generate", "--prompt", "a"], ["chat"]])
def test_options_that_make_no_sense_are_told(monkeypatch, capsys, verb, options, told):
    monkeypatch.setattr(Session, "load", lambda *_: pytest.fail("the model was loaded before"))
    assert cli.main([verb[0], "nowhere", *verb[1:], *options]) == 2
    error = capsys.readouterr().err
    assert told in error and len(error.splitlines()) == 1


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    folder = tmp_path_factory.mktemp("session")
    return own_models.write(folder, "bpe", microworld.World.create(0, 100))


def test_a_chat_streams_what_it_answers_and_keeps_the_history(stage, monkeypatch, capsys):
    how = dict(max_new_tokens=20, sampling=SamplingConfig(temperature=0.0), seed=0)
    session = Session.load(str(stage), devices=jax.devices()[:1])
    parts, turns = [], [{"role": "system", "content": "짧게."}, {"role": "user", "content": "안녕?"}]
    first = session.answer(turns, **how, show=parts.append)
    assert len(parts) > 2 and "".join(parts) == first == session.answer(turns, **how)
    turns += [{"role": "assistant", "content": first}, {"role": "user", "content": "And?"}]
    second = session.answer(turns, **how)
    monkeypatch.setattr("sys.stdin", io.StringIO("안녕?\n\nAnd?\n"))
    command = ["chat", str(stage), "--system", "짧게.", "--temperature", "0", "--max-new-tokens", "20"]
    assert cli.main(command) == 0
    assert capsys.readouterr().out == f"{first}\n{second}\n"


def test_add_bos_is_an_override(stage):
    plain, without = (Session.load(str(stage), add_bos=add_bos) for add_bos in (None, False))
    assert plain.tokenizer.prefix == (plain.tokenizer.bos_id,) and without.tokenizer.prefix == ()
    how = dict(max_new_tokens=8, sampling=SamplingConfig(temperature=0.0), seed=0)
    assert plain.continue_texts(["한빛시는"], **how) != without.continue_texts(["한빛시는"], **how)
    with pytest.raises(UserError, match="the prompt is empty"):
        without.continue_texts([""], **how)


def test_tools_that_cannot_be_read_are_told_before_the_model(tmp_path, capsys):
    for text, told in (("[1]", "must contain a list of JSON schemas"), ("{", "cannot be read")):
        (tmp_path / "tools.json").write_text(text, encoding="utf-8")
        assert cli.main(["chat", "nowhere", "--tools", str(tmp_path / "tools.json")]) == 2
        assert told in capsys.readouterr().err
