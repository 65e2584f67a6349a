"""A folder's chat template, as text with what its tokenizer must know of it.

The folder's own template comes first. One without gets Llama 3's or ChatML, whichever its vocabulary has the symbols
of: models trained here have those of Llama 3. So does one whose template shows no functions, for conversations with
some: otherwise a model would learn calls of functions that it never sees.
"""

import pathlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kanana_jax.data.tokens import calls, specials
from kanana_jax.data.tokens import folder as folder_files
from kanana_jax.data.tokens.rendering import ChatRefused, Limits, Renderer
from kanana_jax.errors import UserError

Message = Mapping[str, Any]
ROLES = ("system", "user", "assistant", "tool")
_SHIPPED = {specials.CHAT_TEMPLATE: specials.CHAT, specials.CHATML_TEMPLATE: specials.CHATML}
_REASONING = ("reasoning_content", "thinking", "reasoning")
_CONTINUED = "CONTINUE_FINAL_MESSAGE_TAG "
_TOOLS = re.compile(r"\btools\b")  # the variable in which transformers hands functions to a template


class ChatFormat:
    """The chat templates of a folder.

    Args:
      folder: of the tokenizer.
      token_id: id of a special token, or None.
      spare: `bos_token` and `eos_token` for the templates shipped here, where the folder does not name them.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        token_id: Callable[[str], int | None],
        spare: Mapping[str, str],
        limits: Limits = Limits(),
    ):
        self._folder, self._token_id, self._spare = folder, token_id, spare
        self._templates = folder_files.templates(folder)
        self._named = {name: piece for name, piece in folder_files.named_tokens(folder).items() if piece is not None}
        self._renderer = Renderer(str(folder), tuple(_SHIPPED), limits)

    def template(self, tools: bool = False) -> str:
        """The template that is used, with tools or without.

        Raises:
          ChatRefused: the folder's template shows no functions, and the vocabulary has no format shipped here.
          UserError: there is none, and no symbols of a format shipped here.
        """
        found = self._templates.get("tool_use") if tools else None
        if found is None and (found := self._templates.get("default")) and tools and not _TOOLS.search(found):
            return self._with_functions(found)
        if found is not None:
            missing = [symbol for symbol in _SHIPPED.get(found, ()) if self._token_id(symbol) is None]
            if missing:
                raise UserError(
                    f"{self._folder}: the vocabulary has no {', '.join(missing)}, which its chat template writes: "
                    "use the tokenizer that belongs to it"
                )
            return found
        if self._templates:
            raise UserError(
                f"{self._folder} has chat templates named {', '.join(sorted(self._templates))[:100]} and none as "
                f"default: name one of them so, or bring the model's {folder_files.TEMPLATE}"
            )
        if shipped := self._shipped():
            return shipped[0]
        raise UserError(
            f"{self._folder} has no chat template, and its vocabulary lacks the symbols of Llama 3's format "
            f"({', '.join(specials.CHAT)}) and of ChatML ({', '.join(specials.CHATML)}): add the model's "
            f"{folder_files.TEMPLATE}, or use a chat model"
        )

    def _shipped(self) -> list[str]:
        """The templates shipped here whose symbols the vocabulary has."""
        return [t for t, symbols in _SHIPPED.items() if all(self._token_id(symbol) is not None for symbol in symbols)]

    def _with_functions(self, plain: str) -> str:
        """The shipped template that is most like one that shows no functions: the format whose symbols it writes."""
        shipped = sorted(self._shipped(), key=lambda t: not all(symbol in plain for symbol in _SHIPPED[t]))
        if shipped:
            return shipped[0]
        raise ChatRefused(
            f"{self._folder}: the chat template shows no functions, and the vocabulary lacks the symbols of Llama 3's "
            f"format and of ChatML: put a template with functions into {folder_files.MORE_TEMPLATES}/tool_use.jinja, "
            "or leave out conversations with tools"
        )

    def render(
        self,
        conversations: Sequence[Sequence[Message]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        prompts: Sequence[bool] = (),
        continued: bool = False,
        marks: bool = False,
        **more: Any,
    ) -> list[str]:
        """Each conversation as text.

        Args:
          tools: JSON schemas of functions that the assistant may call.
          prompts: whether each ends with the header of the assistant's next turn; empty: all do.
          continued: the last message is one that is being written; nothing follows its text.
          marks: `{% generation %}` leaves `template_process.BEGIN` and `END` around its text.
          more: further variables, such as `enable_thinking`.

        Raises:
          UserError: no template, or it refuses the messages, fails, or exceeds its limits.
        """
        template = self.template(bool(tools))
        named = {**self._spare, **self._named} if template in _SHIPPED else self._named
        asked = []
        for index, messages in enumerate(conversations):
            plain = [_plain(message) for message in messages]
            if template in _SHIPPED:
                _check_roles(plain, ChatRefused if self._templates else UserError)
            if continued:
                plain[-1] = _tagged(plain[-1], str(self._folder))
            prompt = not continued and (prompts[index] if prompts else True)
            variables = {"messages": plain, "tools": tools, "documents": None, "add_generation_prompt": prompt}
            asked.append({**named, **variables, **more, **({"_marks": True} if marks else {})})
        texts = self._renderer.render(template, asked)
        return [_untagged(text, str(self._folder)) for text in texts] if continued else texts


def _plain(message: Message) -> dict[str, Any]:
    """A message without empty fields, its reasoning under every name that templates read, as in transformers."""
    kept = {key: value for key, value in calls.for_template(message).items() if value is not None}
    reasoning = next((kept[name] for name in _REASONING if name in kept), None)
    return kept if reasoning is None else {"thinking": reasoning, **kept, "reasoning_content": reasoning}


def _check_roles(messages: Sequence[Message], error: type[UserError]) -> None:
    for message in messages:
        if message["role"] not in ROLES:
            raise error(f"chat role '{message['role']}' is unknown; use one of {', '.join(ROLES)}")


def _tagged(message: dict[str, Any], where: str) -> dict[str, Any]:
    if not isinstance(message.get("content"), str):
        raise UserError(f"{where}: the message that is being written has no text")
    return {**message, "content": message["content"] + _CONTINUED}


def _untagged(text: str, where: str) -> str:
    """The text before the tag; a template that trims leaves no space of its end (as transformers does)."""
    at = text.rfind(_CONTINUED.strip())
    if at < 0:
        raise UserError(f"{where}: the chat template leaves out the message that is being written")
    return text[:at] if text[at : at + len(_CONTINUED)] == _CONTINUED else text[:at].rstrip()
