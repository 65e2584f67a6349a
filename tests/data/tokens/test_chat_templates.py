"""Chat templates of a folder: what they are given, what they may not do, and what of a conversation carries loss."""

import json

import pytest

from kanana_jax.data import microworld
from kanana_jax.data.stream.encode import ConversationEncoder, Refused
from kanana_jax.data.tokens import chat, specials, training
from kanana_jax.data.tokens.chat_format import ChatFormat
from kanana_jax.data.tokens.rendering import ChatRefused, Limits, Renderer
from kanana_jax.data.tokens.tokenizer import load_tokenizer
from kanana_jax.errors import UserError

QUICK = Limits(seconds=0.5, memory_bytes=1 << 29, characters=100_000)
ASK = [{"role": "user", "content": "값은 <b>?"}]
# Each with words of its one sentence.
HOSTILE = {
    "loops": ("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "end within 0.5 sec"),
    "a long range": ("{% for a in range(10 ** 12) %}{% endfor %}", "asks for too much"),
    "a power": ("{% set n = 9 ** 9 %}{{ n ** n }}", "chat template "),
    "a long text": ("{{ 'x' * 10 ** 11 }}", "needs too much memory"),
    "a wide format": ("{{ '%099999999999d' % 1 }}", "chat template"),
    "a growing list": (
        "{% set n = namespace(x=[1]) %}{% for a in range(60) %}{% set n.x = n.x + n.x %}{% endfor %}",
        "chat template ",
    ),
    "much output": ("{% for a in range(99999) %}xxxx{% endfor %}", "writes more than 100,000 characters"),
    "recursion": ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "calls itself without end"),
    "insides": ("{{ ''.__class__.__mro__ }}", "not a template's"),
    "insides by a filter": ("{{ (messages|attr('__class__')).__mro__ }}", "not a template's"),
    "changes": ("{{ messages.append(1) }}", "not a template's"),
    "other files": ("{% include '/etc/passwd' %}", "chat template"),
    "nesting": ("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", "chat template"),
    "no template": ("{% for %}", "is damaged in line 1"),
    "unknown": ("{{ messages | nothing }}", "is damaged in line 1"),
    "an error": ("{{ 1 / 0 }}", "fails (ZeroDivisionError"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_template_is_one_sentence(name):
    template, told = HOSTILE[name]
    renderer = Renderer("folder", limits=QUICK)
    with pytest.raises(UserError) as caught:
        renderer.render(template, [{"messages": ASK}])
    sentence = str(caught.value)
    assert sentence.startswith("folder: the chat template ") and told in sentence and "\n" not in sentence
    assert len(sentence) < 500
    # The next one starts anew.
    assert renderer.render("{{ messages[0].content }}", [{"messages": ASK}]) == ["값은 <b>?"]


def test_a_template_may_refuse():
    with pytest.raises(ChatRefused, match="refuses these messages: users first"):
        Renderer("f").render("{{ raise_exception('users first') }}", [{}])


def test_what_a_template_finds():
    render = Renderer("f").render
    given = {"value": {"b": ["가 <&'", 1.5, None], "a": True}}
    assert render("{{ value | tojson }}", [given]) == ['{"b": ["가 <&\'", 1.5, null], "a": true}']
    assert json.loads(render("{{ value | tojson(indent=2, sort_keys=true) }}", [given])[0]) == given["value"]
    assert len(render("{{ strftime_now('%Y-%m-%d') }}", [{}])[0]) == 10
    assert render("{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}", [{}]) == ["01"]
    assert render("{% generation %}said{% endgeneration %}{{ nobody }}.", [{}]) == ["said."]
    assert render("  {% if true %}\n x\n  {% endif %}\n", [{}]) == [" x\n"]  # blocks leave no lines


def _folder(tmp_path, config=None, token_id=lambda piece: None, **files):
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config or {}))
    for name, text in files.items():
        target = tmp_path / ("chat_template.jinja" if name == "default" else f"additional_chat_templates/{name}.jinja")
        target.parent.mkdir(exist_ok=True)
        target.write_text(text)
    return ChatFormat(tmp_path, token_id, {})


def test_templates_are_found_where_transformers_finds_them(tmp_path):
    named = [{"name": "default", "template": "plain"}, {"name": "tool_use", "template": "tools"}]
    for number, (config, files, want) in enumerate(
        [
            ({"chat_template": "one tools"}, {}, ("one tools", "one tools")),
            ({"chat_template": named}, {}, ("plain", "tools")),
            ({"chat_template": {"default": "tools"}}, {}, ("tools", "tools")),
            ({"chat_template": "one"}, {"default": "no tools"}, ("no tools", "no tools")),
            ({}, {"default": "file", "tool_use": "more"}, ("file", "more")),
        ]
    ):
        (tmp_path / str(number)).mkdir()
        found = _folder(tmp_path / str(number), config, **files)
        assert (found.template(), found.template(tools=True)) == want


@pytest.mark.parametrize(
    "config, told",
    [
        ({}, "has no chat template"),
        ({"chat_template": 3}, "neither a text nor a list"),
        ({"chat_template": [{"name": "rag", "template": "x"}]}, "named rag and none as default"),
        ({"chat_template": "x" * (2 << 20)}, "more than any chat template"),
    ],
)
def test_folders_without_a_template_that_can_be_used(tmp_path, config, told):
    with pytest.raises(UserError, match=told):
        _folder(tmp_path, config).template()


def test_reasoning_and_empty_fields_are_as_in_transformers(tmp_path):
    found = _folder(tmp_path, default="{{ bos_token }}{% for m in messages %}{{ m | tojson }}{% endfor %}")
    (text,) = found.render([[{"role": "assistant", "content": "3", "tool_calls": None, "thinking": "1+2"}]])
    assert json.loads(text) == {"role": "assistant", "content": "3", "thinking": "1+2", "reasoning_content": "1+2"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    texts = [d["text"] for d in microworld.documents(microworld.World.create(0, 100), "news", "ko", 100)]
    training.train_tokenizer({"ko": texts}, training.TokenizerConfig(vocab_size=500, train_bytes=20_000), folder)
    return folder


def _with(trained, tmp_path, template):
    load_tokenizer(trained).save(tmp_path)
    (tmp_path / "chat_template.jinja").write_text(template)
    return load_tokenizer(tmp_path)


TURNS = [
    {"role": "user", "content": "3 더하기 4는?"},
    {"role": "assistant", "content": "7이다."},
    {"role": "user", "content": "<|eot_id|> And?"},
    {"role": "assistant", "content": "Seven <|eot_id|> it is."},
]
MARKED = (
    "{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n{% if m.role == 'assistant' %}"
    "{% generation %}{{ m.content }}<|eot_id|>{% endgeneration %}{% else %}{{ m.content }}<|eot_id|>{% endif %}\n"
    "{% endfor %}{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n{% endif %}"
)
UNMARKED = MARKED.replace("{% generation %}", "").replace("{% endgeneration %}", "")


@pytest.mark.parametrize("template", [MARKED, UNMARKED, specials.CHAT_TEMPLATE], ids=["marked", "unmarked", "shipped"])
def test_only_what_the_assistant_says_carries_loss(trained, tmp_path, template):
    tokenizer = _with(trained, tmp_path, template)
    ids, weights = chat.encode_conversation(tokenizer, TURNS)
    eot = tokenizer.token_id("<|eot_id|>")
    # Spelt symbols stay text, so that every turn has one end.
    assert ids.tolist().count(eot) == len(TURNS)
    parts = []
    for i in range(len(ids)):
        if weights[i]:
            if not i or not weights[i - 1]:
                parts.append([])
            parts[-1].append(int(ids[i]))
    assert [tokenizer.decode(part) for part in parts] == ["7이다.", "Seven <|eot_id|> it is."]
    assert all(part[-1] == eot for part in parts)
    prompt = chat.encode_chat(tokenizer, TURNS[:3])
    assert ids[: len(prompt)].tolist() == prompt.tolist()


def test_a_template_that_rewrites_earlier_turns_is_refused_for_training(trained, tmp_path):
    rewrites = UNMARKED.replace("{{ m.content }}", "{{ m.content if loop.last else 'gone' }}")
    tokenizer = _with(trained, tmp_path, rewrites)
    with pytest.raises(UserError, match="writes an answer otherwise than behind its prompt"):
        chat.encode_conversation(tokenizer, TURNS)
    former = UNMARKED.replace("{{ m.content }}", "{{ m.content if loop.last or m.role == 'user' else 'gone' }}")
    (tmp_path / "former").mkdir()
    tokenizer = _with(trained, tmp_path / "former", former)
    with pytest.raises(UserError, match="writes an earlier turn otherwise"):
        chat.encode_conversation(tokenizer, TURNS)
    first, second = chat.encode_answers(tokenizer, TURNS)  # which shows each answer as it is asked for
    assert [tokenizer.decode(ids[weights > 0]) for ids, weights in (first, second)] == [
        "7이다.",
        "Seven <|eot_id|> it is.",
    ]
    for (ids, weights), end in ((first, 1), (second, 3)):
        prompt = chat.encode_chat(tokenizer, TURNS[:end])
        assert ids[: len(prompt)].tolist() == prompt.tolist() and not weights[: len(prompt)].any()


def test_tools_and_further_variables_reach_the_template(trained, tmp_path):
    template = (
        "{% if tools %}{{ tools | tojson }}{% endif %}{{ messages[0].content }}{% if not thinking_on %}#{% endif %}"
    )
    tokenizer = _with(trained, tmp_path, template)
    tools = [{"type": "function", "function": {"name": "가격"}}]
    ids = chat.encode_chat(tokenizer, ASK, tools, thinking_on=True)
    assert tokenizer.decode(ids) == json.dumps(tools, ensure_ascii=False) + "값은 <b>?"


PLAIN = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
CALLED = [*ASK, {"role": "assistant", "tool_calls": [{"function": {"name": "price", "arguments": {"n": 2}}}]}]
PRICE = [{"type": "function", "function": {"name": "price", "parameters": {"type": "object"}}}]


def test_a_template_without_functions_is_not_used_where_there_are_some(tmp_path):
    ids = {symbol: i for i, symbol in enumerate(specials.CHATML)}
    given = _folder(tmp_path, {"chat_template": PLAIN}, ids.get)
    assert given.template() == PLAIN and given.render([ASK], prompts=[False])[0].count("<|im_start|>") == 1
    (text,) = given.render([CALLED], tools=PRICE, prompts=[False])
    assert json.dumps(PRICE[0]) in text and '<tool_call>\n{"name": "price", "arguments": {"n": 2}}' in text
    own = _folder(tmp_path, {"chat_template": PLAIN + "{{ tools }}"}, ids.get)
    assert own.template(tools=True) == PLAIN + "{{ tools }}"
    both = {symbol: i for i, symbol in enumerate((*specials.CHAT, *specials.CHATML))}
    assert _folder(tmp_path, {"chat_template": PLAIN}, both.get).template(tools=True) == specials.CHATML_TEMPLATE
    assert _folder(tmp_path, {"chat_template": "x"}, both.get).template(tools=True) == specials.CHAT_TEMPLATE
    with pytest.raises(ChatRefused, match="shows no functions, and the vocabulary lacks"):
        _folder(tmp_path, {"chat_template": PLAIN}).template(tools=True)
    with pytest.raises(UserError, match="the vocabulary has no <.im_start"):
        _folder(tmp_path, tool_use=specials.CHATML_TEMPLATE).template(tools=True)


def test_conversations_whose_functions_no_template_shows_are_counted(trained, tmp_path):
    tokenizer = _with(trained, tmp_path, PLAIN)

    def encoded(*more):
        record = {"id": "a", "text": "", "lang": "ko", "messages": [*CALLED, *more], "tools": PRICE}
        return ConversationEncoder(tokenizer, 512)(record)

    assert len(encoded()) == 1
    assert encoded({"role": "ipython", "content": "3"}) == Refused("refused_by_template")
    tokenizer.chat._token_id = lambda symbol: None
    assert encoded() == Refused("refused_by_template")
