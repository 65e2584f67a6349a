"""What a model thinks is hidden as it is written, whatever the tags stand between, and never comes back."""

import pytest

from kanana_jax.inference.thinking import answer_of

WHOLE = {
    "<think>1+2\nis 3</think>\n\n셋이다.": "셋이다.",
    "no thought <b>": "no thought <b>",
    "<think>never ends": "",
    "\n<think>a</think>b<think>c</think>d<thi": "bd<thi",
    "": "",
}


@pytest.mark.parametrize("text", WHOLE)
def test_an_answer_is_what_stands_outside_of_the_tags(text):
    assert answer_of(text) == WHOLE[text]
    # As it is written, what was shown once stays.
    shown = ""
    for end in range(len(text) + 1):
        now = answer_of(text[:end], more=True)
        assert now.startswith(shown) and "<think" not in now
        shown = now
    assert WHOLE[text].startswith(shown)


def test_a_prompt_may_have_opened_the_tag():
    assert answer_of("so 3</think>\n3", begun=True) == "3" and answer_of("so 3", begun=True, more=True) == ""
