"""The text after a prompt: first spaces stay, and characters whose bytes stand on both sides of the border."""

import io

import pytest
import sentencepiece

from kanana_jax.data import microworld
from kanana_jax.data.tokens import conversion, hugging_face
from kanana_jax.data.tokens.tokenizer import continuation, load_tokenizer

TEXTS = [
    r["text"] for lang in ("ko", "en") for r in microworld.parse_uri(f"microworld://news/{lang}?count=60&size=100")
]


@pytest.fixture(scope="module", params=["unigram", "bpe"])
def llama_2(request, tmp_path_factory):
    """A vocabulary that puts a space before a text and takes it away again, as `.model` and as `tokenizer.json`."""
    model, place = io.BytesIO(), tmp_path_factory.mktemp("llama2")
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=(line for text in TEXTS for line in text.split("\n")), model_writer=model, vocab_size=700,
        model_type=request.param, byte_fallback=True, normalization_rule_name="identity", add_dummy_prefix=True,
        remove_extra_whitespaces=False, minloglevel=2, num_threads=1,
    )  # fmt: skip
    for name in ("model", "json"):
        (place / name).mkdir()
    (place / "model" / "tokenizer.model").write_bytes(model.getvalue())
    for name, data in conversion.convert(model.getvalue()).items():
        hugging_face.write(place / "json" / name, data)
    return [load_tokenizer(place / name) for name in ("model", "json")]


@pytest.mark.parametrize("text", ["The city 가람시 is  known\n    return x", "👍🏽 쀍뷁 é 말", " a"])
def test_prompt_and_continuation_are_the_text_wherever_it_is_cut(llama_2, text):
    for tokenizer in llama_2:
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        for cut in range(len(ids) + 1):
            before, after = tokenizer.decode(ids[:cut]), continuation(tokenizer, ids[:cut], ids[cut:])
            whole = before.rstrip("\ufffd")  # bytes of a character that is not yet complete
            assert whole + after == text, cut
        assert any(
            continuation(tokenizer, ids[:cut], ids[cut:]) != tokenizer.decode(ids[cut:]) for cut in range(1, len(ids))
        )


def test_new_halves_of_characters_are_marked_as_such(llama_2):
    for tokenizer in llama_2:
        ids = tokenizer.encode("city 쀍")
        assert len(ids) > 4 and continuation(tokenizer, ids[:1], ids[1:-1]).endswith("\ufffd")
