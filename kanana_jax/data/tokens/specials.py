"""The special tokens of vocabularies that are trained here, and the files that declare them to other tools.

Their names are Llama 3's where it has them, so that one chat format serves both. They cannot come out of text.
"""

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

CHAT = ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
CONTROL = (*CHAT, "<|mask|>", *(f"<|reserved_{i}|>" for i in range(4)))


@dataclasses.dataclass(frozen=True)
class Names:
    """Special tokens of a vocabulary: the ends of a text, and padding."""

    bos: str
    eos: str
    pad: str | None

    def all(self) -> list[str]:
        return [name for name in (self.bos, self.eos, self.pad) if name is not None]


# A byte-level vocabulary has Llama 3's names, a SentencePiece one its own.
LLAMA_3 = Names("<|begin_of_text|>", "<|end_of_text|>", "<|pad|>")


def _chat(begin: str, before: str, after: str, end: str) -> str:
    """A template of turns, with functions and their calls in Hermes' format.

    Args:
      begin: of a conversation.
      before, after: around a turn's role.
      end: of a turn.
    """
    tools = (
        "You can call functions. Write each call as\n"
        '<tool_call>\n{"name": NAME, "arguments": {…}}\n</tool_call>\n'
        "and ask for what is missing.\n<tools>\n{% for t in tools %}{{ t | tojson }}\n{% endfor %}</tools>"
    )
    calls = (
        "{% for c in m.tool_calls | default([], true) %}{% set f = c.function | default(c, true) %}"
        "{% if not loop.first or m.content %}{{ '\n' }}{% endif %}"  # a line end behind a block would be trimmed
        '<tool_call>\n{"name": {{ f.name | tojson }}, "arguments": {{ f.arguments | tojson }}}\n</tool_call>'
        "{% endfor %}"
    )
    return (
        f"{begin}{{% if tools %}}{before}system{after}"
        "{% if messages[0].role == 'system' %}{{ messages[0].content | trim }}\n\n{% endif %}"
        f"{tools}{end}{{% endif %}}"
        "{% for m in messages %}{% if not (tools and loop.first and m.role == 'system') %}"
        f"{before}{{{{ m.role }}}}{after}{{{{ m.content | default('', true) | trim }}}}{calls}{end}"
        "{% endif %}{% endfor %}"
        f"{{% if add_generation_prompt %}}{before}assistant{after}{{% endif %}}"
    )


# Llama 3's chat format.
CHAT_TEMPLATE = _chat("{{ bos_token }}", "<|start_header_id|>", "<|end_header_id|>\n\n", "<|eot_id|>")
CHATML = ("<|im_start|>", "<|im_end|>")
CHATML_TEMPLATE = _chat("", "<|im_start|>", "\n", "<|im_end|>\n")


def added_token(identity: int, content: str) -> dict[str, Any]:
    """An entry of `added_tokens` in `tokenizer.json`: matched literally, left out of decoded text."""
    plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": identity, "content": content, **plain, "special": True}


def bos_template(bos: str, identity: int) -> dict[str, Any]:
    """The `post_processor` of `tokenizer.json` that puts BOS before a text."""
    return around([(bos, identity)], [])


def around(before: Sequence[tuple[str, int]], after: Sequence[tuple[str, int]]) -> dict[str, Any]:
    """The `post_processor` of `tokenizer.json` that puts tokens, each a spelling and an id, around a text."""

    def part(letter: str, kind: int) -> list[dict[str, Any]]:
        left, right = (
            [{"SpecialToken": {"id": name, "type_id": kind}} for name, _ in side] for side in (before, after)
        )
        return [*left, {"Sequence": {"id": letter, "type_id": kind}}, *right]

    return {
        "type": "TemplateProcessing",
        "single": part("A", 0),
        "pair": [*part("A", 0), *part("B", 1)],
        "special_tokens": {name: {"id": name, "ids": [i], "tokens": [name]} for name, i in (*before, *after)},
    }


def companions(names: Names, ids: dict[str, int], **more: Any) -> dict[str, bytes]:
    """The files beside `tokenizer.json`, by name.

    Args:
      names: the tokens' spelling.
      ids: of every special token, by its spelling.
      more: further keys of `tokenizer_config.json`.
    """
    tokens = {"bos_token": names.bos, "eos_token": names.eos}
    if names.pad is not None:
        tokens["pad_token"] = names.pad
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **tokens,
        "add_bos_token": True,
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
        **more,
    }
    ends = [ids[name] for name in (names.eos, CHAT[-1]) if name in ids]
    generation = {"bos_token_id": ids[names.bos], "eos_token_id": ends}
    if names.pad is not None:
        generation["pad_token_id"] = ids[names.pad]
    files = {
        "tokenizer_config.json": _json(config),
        "special_tokens_map.json": _json(tokens),
        "generation_config.json": _json(generation),
    }
    if all(symbol in ids for symbol in CHAT):
        files["chat_template.jinja"] = CHAT_TEMPLATE.encode()
    return files


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, indent=2).encode()
