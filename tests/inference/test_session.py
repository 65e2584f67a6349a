"""Text out of a model folder: options that make no sense end in a sentence, before a model is loaded."""

import pytest

from kanana_jax import cli
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
