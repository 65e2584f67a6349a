"""Ids and chats of small tokenizers of every kind against transformers' AutoTokenizer."""

import json

import numpy as np
import pytest
import texts_to_encode as texts
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from kanana_jax.data.tokens import chat
from kanana_jax.data.tokens.tokenizer import encode_document, load_tokenizer

pytestmark = pytest.mark.parity
transformers = pytest.importorskip("transformers")

SPECIAL = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


def _byte_level(normalizer=None):
    made = Tokenizer(models.BPE())
    made.normalizer = normalizer
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\p{N}|\p{L}+|[^\p{L}\p{N}]+"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=700, initial_alphabet=alphabet, special_tokens=SPECIAL, show_progress=False
    )
    made.train_from_iterator(texts.TEXTS, trainer)
    return made


def _unigram(prepend):
    made = Tokenizer(models.Unigram())
    made.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=prepend)
    made.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(prepend_scheme=prepend)])
    trainer = trainers.UnigramTrainer(
        vocab_size=500, special_tokens=[*SPECIAL, *BYTES], unk_token="<unk>", show_progress=False
    )
    made.train_from_iterator(texts.TEXTS[:4], trainer)
    definition = json.loads(made.to_str())
    definition["model"] |= {"byte_fallback": True, "unk_id": 0}
    definition["added_tokens"] = [t for t in definition["added_tokens"] if not t["content"].startswith("<0x")]
    return Tokenizer.from_str(json.dumps(definition))


KINDS = {
    "bytes": lambda: _byte_level(),
    "bytes_nfc": lambda: _byte_level(normalizers.NFC()),
    "unigram": lambda: _unigram("always"),
    "unigram_first": lambda: _unigram("first"),
}


def _folder(kind, tmp_path, *, begin, config=None):
    made = KINDS[kind]()
    if begin:
        made.post_processor = processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", made.token_to_id("<s>"))]
        )
    flags = dict(single_word=False, normalized=False)
    made.add_tokens([AddedToken("<think>", **flags), AddedToken("[가격]", lstrip=True, rstrip=True, **flags)])
    made.add_tokens([AddedToken("cat", single_word=True), AddedToken("ﬁne", normalized=True)])
    made.save(str(tmp_path / "tokenizer.json"))
    named = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(named | (config or {})))
    return tmp_path


@pytest.mark.parametrize("begin", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_ids_are_those_of_auto_tokenizer(kind, begin, tmp_path):
    # What the config says of BOS is not read where there is a tokenizer.json.
    folder = _folder(kind, tmp_path, begin=begin, config={"add_bos_token": not begin})
    ours, theirs = load_tokenizer(folder), transformers.AutoTokenizer.from_pretrained(folder)
    for text in texts.TEXTS:
        plain = theirs(text, add_special_tokens=False)["input_ids"]
        assert ours.encode_with_symbols(text).tolist() == plain, text
        assert [*ours.prefix, *plain, *ours.suffix] == theirs(text)["input_ids"]
        assert ours.encode_placed(text, symbols=True)[0].tolist() == plain
    assert ours.prefix == ((theirs.bos_token_id,) if begin else ())
    document = encode_document(ours, "가격")
    assert document[-1] == theirs.eos_token_id and (document[0] == theirs.bos_token_id) == begin


def test_added_tokens_of_the_config_alone_are_added(tmp_path):
    added = {"content": "<new>", "lstrip": True, "rstrip": False, "normalized": False, "single_word": False}
    made = _folder("bytes", tmp_path, begin=False)
    size = load_tokenizer(made).vocab_size
    decoder = {str(size): added | {"special": True}}
    config = json.loads((made / "tokenizer_config.json").read_text()) | {"added_tokens_decoder": decoder}
    (made / "tokenizer_config.json").write_text(json.dumps(config))
    ours, theirs = load_tokenizer(made), transformers.AutoTokenizer.from_pretrained(made)
    text = "a  <new> b"
    assert ours.encode_with_symbols(text).tolist() == theirs(text)["input_ids"]
    assert size in theirs(text)["input_ids"] and size not in ours.encode(text)


@pytest.mark.parametrize("begin", [True, False])
def test_an_override_is_what_the_saved_folder_says(tmp_path, begin):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    folder = _folder("bytes", tmp_path / "a", begin=not begin)
    ours = load_tokenizer(folder, add_bos=begin)
    ours.save(tmp_path / "b")
    again, theirs = load_tokenizer(tmp_path / "b"), transformers.AutoTokenizer.from_pretrained(tmp_path / "b")
    assert again.fingerprint == load_tokenizer(folder).fingerprint and again.prefix == ours.prefix
    for text in texts.TEXTS:
        assert theirs(text)["input_ids"] == [*ours.prefix, *ours.encode_with_symbols(text)]


HEAD = "{% if messages[0].role == 'system' %}{% set rest = messages[1:] %}{% set told = messages[0].content %}"
# Small ones of the constructs that families use.
TEMPLATES = {
    "chatml with a default": "{% for m in messages %}{% if loop.first and m.role != 'system' %}{{ '<|im_start|>system\n"
    "Be kind.<|im_end|>\n' }}{% endif %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    "tools": "{%- if tools %}\n  {{- '<tools>' }}\n  {%- for tool in tools %}\n    {{- tool | tojson }}\n  {%- endfor %}"
    "{%- endif %}\n{%- for m in messages %}\n{%- if m.tool_calls is defined %}{{- m.tool_calls[0].function.arguments | "
    "tojson(indent=1) }}{%- else %}\n{{- '\n' + m.content|trim }}{%- endif %}\n{%- endfor %}",
    "thinking dropped": "{% set ns = namespace(last=-1) %}{% for m in messages %}{% if m.role == 'user' %}{% set ns.last "
    "= loop.index0 %}{% endif %}{% endfor %}{% for m in messages %}{% set c = m.content %}{% if '</think>' in c and "
    "loop.index0 < ns.last %}{% set c = c.split('</think>')[-1].lstrip('\n') %}{% endif %}[{{ m.role }}]{{ c }}"
    "{% endfor %}{% if add_generation_prompt and enable_thinking is defined and not enable_thinking %}<think>\n\n"
    "</think>{% endif %}",
    "reversed roles": HEAD
    + "{% else %}{% set rest = messages %}{% set told = '' %}{% endif %}{{ bos_token }}{% for m in "
    "rest %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}"
    "{% endif %}{{ 'model' if m.role == 'assistant' else m.role }}: {{ (told + ' ' if loop.first and told else '') + "
    "m.content | trim }}{{ eos_token if not loop.last }}{% endfor %}",
    "marks and macros": "{% macro turn(m) %}{{ m.role }}\n{{ m.content }}{% endmacro %}{% for m in messages %}"
    "{% if m.role == 'system' %}{% continue %}{% endif %}{% if m.role == 'assistant' %}{% generation %}{{ turn(m) }}"
    "{% endgeneration %}{% else %}{{ turn(m) }}{% endif %}{% endfor %}{{ strftime_now('%Y') }}",
}
CHATS = [
    [{"role": "user", "content": " 값은? \n"}],
    [
        {"role": "system", "content": "짧게."},
        {"role": "user", "content": "3+4 <b>"},
        {"role": "assistant", "content": "<think>3+4=7</think>\n7이다.", "tool_calls": None},
        {"role": "user", "content": "And 'e\u0301'?"},
    ],
]
CALL = {"function": {"name": "f", "arguments": {"도시": "서울", "n": 1.5}}}


@pytest.mark.parametrize("name", TEMPLATES)
def test_chats_are_those_of_apply_chat_template(name, tmp_path):
    folder = _folder("bytes", tmp_path, begin=True)
    (folder / "chat_template.jinja").write_text(TEMPLATES[name])
    ours, theirs = load_tokenizer(folder), transformers.AutoTokenizer.from_pretrained(folder)
    calls = [[*CHATS[0], {"role": "assistant", "content": "", "tool_calls": [CALL]}]]
    given = [{}, {"enable_thinking": False}]
    if "tools" in TEMPLATES[name]:  # with functions, one that shows none is not used here (docs/data.md)
        given.append({"tools": [{"type": "function", "function": {"name": "가"}}]})
    for messages in CHATS + (calls if name == "tools" else []):
        for more in given:
            for prompt in (True, False):
                asked = dict(tokenize=False, add_generation_prompt=prompt, **more)
                assert ours.chat.render([messages], prompts=[prompt], **more) == [
                    theirs.apply_chat_template(messages, **asked)
                ]
            want = theirs.apply_chat_template(messages, add_generation_prompt=True, return_dict=True, **more)
            np.testing.assert_array_equal(chat.encode_chat(ours, messages, **more), want["input_ids"])
    begun = [*CHATS[0], {"role": "assistant", "content": "It is "}]
    want = theirs.apply_chat_template(begun, tokenize=False, continue_final_message=True)
    assert ours.chat.render([begun], continued=True) == [want]


# With `{% generation %}`, each around something else: the answer alone, with the end of its turn, with its header's line
# end, and only the thoughts and calls of the last turn.
MARKED = {
    "the answer and its end": "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}"
    "{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}{% else %}{{ m.content }}<|im_end|>{% endif %}\n"
    "{% endfor %}",
    "the answer alone": "{{ bos_token }}{% for m in messages %}{% if m.role == 'assistant' %}[a]{% generation %} "
    "{{ m.content | trim }}{% endgeneration %}</s>{% else %}[{{ m.role }}] {{ m.content }}{% endif %}{% endfor %}",
    "thoughts and calls": "{% if tools %}{% for t in tools %}{{ t | tojson }}{% endfor %}\n{% endif %}{% for m in messages %}"
    "<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}{% generation %}{% if m.reasoning_content and loop.last %}"
    "<think>\n{{ m.reasoning_content }}\n</think>\n\n{% endif %}{{ m.content }}{% if m.tool_calls %}{% for c in "
    "m.tool_calls %}<call>{{ c.function | tojson }}{% endfor %}{% endif %}<|im_end|>\n{% endgeneration %}{% else %}"
    "{{ m.content }}<|im_end|>\n{% endif %}{% endfor %}",
    "line ends of the header": "{% for m in messages %}{{ m.role }}:\n{% if m.role == 'assistant' %}{% generation %}\n"
    "{{ m.content }}\n{% endgeneration %}{% else %}{{ m.content }}\n{% endif %}{% endfor %}",
}
SAID = [
    [*CHATS[1], {"role": "assistant", "content": "👍🏽 그렇다"}],
    [CHATS[0][0], {"role": "assistant", "content": "\n\n예.  "}, CHATS[0][0], {"role": "assistant", "content": ""}],
    [
        CHATS[0][0],
        {"role": "assistant", "content": "", "reasoning_content": "x", "tool_calls": [CALL, CALL]},
        {"role": "tool", "content": "맑음"},
        {"role": "assistant", "content": "맑습니다.", "reasoning_content": "그래\n그래"},
    ],
    CHATS[0],
]


@pytest.mark.parametrize("template", MARKED)
@pytest.mark.parametrize("kind", ["bytes", "unigram_first"])
def test_what_carries_loss_is_their_assistant_mask(kind, template, tmp_path):
    folder, tools = _folder(kind, tmp_path, begin=False), [{"type": "function", "function": {"name": "날씨"}}]
    (folder / "chat_template.jinja").write_text(MARKED[template])
    ours, theirs = load_tokenizer(folder), transformers.AutoTokenizer.from_pretrained(folder)
    for messages in SAID:
        for more in (None, tools) if "tools" in MARKED[template] else (None,):
            want = theirs.apply_chat_template(
                messages, tools=more, return_dict=True, return_assistant_tokens_mask=True
            )
            ids, weights = chat.encode_conversation(ours, messages, more)
            assert ids.tolist() == want["input_ids"]
            assert weights.tolist() == want["assistant_masks"], (messages, theirs.convert_ids_to_tokens(ids))
            assert weights.any() == (len(messages) > 1) and not weights.all()
