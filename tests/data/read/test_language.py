"""Language shares: text of known languages, alone and mixed, and what the library refuses."""

import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kanana_jax.data.arrays import characters
from kanana_jax.data.read import language

TEXTS = {
    "ko": "오늘은 날씨가 맑아서 강가를 따라 오래 걸었다. 길가에는 작은 꽃이 피어 있었고 아이들이 뛰어놀았다.",
    "ja": "今日は天気がよかったので、川沿いの道を長く歩いた。道端には小さな花が咲き、子どもたちが遊んでいた。",
    "en": "The weather was fine today, so we walked along the river for a long time and watched the children play.",
    "de": "Heute war das Wetter schön, deshalb gingen wir lange am Fluss entlang und sahen den Kindern beim Spielen zu.",
    "zh": "今天天气很好,我们沿着河边走了很久,看着孩子们在草地上玩耍,路边开着许多小花。",
}


@pytest.mark.parametrize("lang", list(TEXTS))
def test_a_text_is_in_its_language(lang):
    found = {other: language.shares([TEXTS[lang]], other)[0] for other in TEXTS}
    assert found.pop(lang) > 0.9 and max(found.values()) == 0.0


def test_a_mixture_has_shares_of_both():
    mixed = f"{TEXTS['ko']}\n\n{TEXTS['en']}"
    korean, english = (language.shares([mixed], lang)[0] for lang in ("ko", "en"))
    assert 0.3 < korean < 0.8 and 0.2 < english < 0.6 and korean + english <= 1.0


def test_chinese_variants_are_one_language():
    assert (
        language.shares(["今天天氣很好,我們沿著河邊走了很久,看著孩子們在草地上玩耍,路邊開著許多小花。"], "zh")[0] > 0.9
    )


@pytest.mark.parametrize(
    "bad", ["\x01", "\x7f", "\ufffe", "\uffff", "\ufdd0", "\U0001ffff", "\U0010fffe", "\u0085", "\u200b"]
)
def test_what_the_library_refuses_changes_nothing(bad):
    assert language.shares([TEXTS["ko"].replace(" ", f" {bad} ")], "ko")[0] > 0.85


def test_nothing_is_in_no_language():
    assert language.shares(["", "  ", "1234 5678", "!!!"], "ko").tolist() == [0.0] * 4


@settings(max_examples=300)
@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=80))
def test_any_text_has_shares_and_nfc_equals_nfd(text):
    text = characters.normalise(text)
    values = [language.shares([text], lang)[0] for lang in ("ko", "ja", "en")]
    assert min(values) >= 0 and sum(values) <= 1.0 + 1e-9
    decomposed = characters.normalise(unicodedata.normalize("NFD", text))
    np.testing.assert_array_equal(language.shares([decomposed], "ko"), language.shares([text], "ko"))
