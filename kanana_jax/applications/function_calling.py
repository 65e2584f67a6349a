"""Function calling: assistant turns in which the arguments of every call conform to the function's JSON schema.

Tools and calls have OpenAI's format (`tools`, `tool_calls`); the model reads and writes them in the format of its chat
template (`data.tokens.calls`). A grammar constrains the name and arguments of a call; text and thinking are free.
Nothing is executed.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from kanana_jax.applications.call_grammar import grammar
from kanana_jax.data.tokens import calls
from kanana_jax.data.tokens.calls import Reply
from kanana_jax.errors import UserError, nearest
from kanana_jax.inference import thinking
from kanana_jax.inference.constrained import Constraint, Vocabulary, followed
from kanana_jax.inference.generate import Allowed
from kanana_jax.inference.sampling import SamplingConfig
from kanana_jax.inference.session import Session


@dataclasses.dataclass(frozen=True)
class Choice:
    """The kind of turn that is allowed, as OpenAI's `tool_choice` and `parallel_tool_calls`.

    Attributes:
      kind: `auto`: text or calls; `required`: at least one call; `none`: text.
      function: name of the only function that may, and then must, be called; "": any.
      parallel: whether a turn may hold several calls.
    """

    kind: Literal["auto", "required", "none"] = "auto"
    function: str = ""
    parallel: bool = True


@dataclasses.dataclass(frozen=True)
class Tools:
    """Functions that a turn may call, prepared for a model's call format.

    Attributes:
      form: format of calls in the model's chat template.
      schemas: JSON schema of the parameters, by name of the function.
      grammar: grammar of the whole turn.
    """

    form: calls.Name
    schemas: Mapping[str, calls.Schema]
    grammar: str

    def read(self, text: str) -> Reply:
        """Parses the text and calls of a turn, given without its thinking."""
        return calls.read(text, self.form, self.schemas)


class Caller:
    """A model that calls functions. Create one per session: reading the vocabulary takes time.

    Raises:
      ConfigError: the extra `calls` is not installed.
      UserError: the chat template writes calls in an unknown format, or grammars do not support the tokenizer.
    """

    def __init__(self, session: Session):
        self.session = session
        self._form = calls.format_of(session.tokenizer.chat.template(True))
        self._vocabulary = Vocabulary.of(session.tokenizer, session.stop_ids)

    def tools(self, tools: Sequence[Mapping[str, Any]], choice: Choice = Choice()) -> Tools:
        """Checks the functions that a turn may call and compiles their grammar.

        Raises:
          UserError: a tool is malformed, the chosen function is not among them, or a schema has a keyword that the
            grammar cannot guarantee.
        """
        form = self._form
        schemas = calls.schemas(tools)
        if choice.function and choice.function not in schemas:
            raise UserError(f"there is no function '{choice.function[:64]}': {nearest(choice.function, list(schemas))}")
        callable_ = {choice.function: schemas[choice.function]} if choice.function else schemas
        symbols = self._vocabulary.symbols(calls.MARKS)
        required = choice.kind == "required" or bool(choice.function)
        text = grammar(form, callable_, symbols, required=required, parallel=choice.parallel)
        self._vocabulary.matcher(text)
        return Tools(form, schemas, text)

    def constraint(self, tools: Tools, prompt: np.ndarray) -> Constraint:
        """The state of the grammar during the generation of one reply."""
        return Constraint(self._vocabulary, tools.grammar, prompt)

    def allowed(self, constraints: Sequence[Constraint | None]) -> Allowed:
        """The allowed tokens of a batch, with one constraint per prompt; None allows any token."""
        return followed(constraints, self._vocabulary.size)

    def text_of(self, prompt: np.ndarray, new: np.ndarray, *, more: bool = False) -> str:
        """The text of the ids generated after a prompt, without thinking, and with the marks of calls spelt out.

        Args:
          prompt: ids `[T]` of the prompt.
          new: generated ids `[N]`.
          more: whether generation continues, so that an incomplete character at the end is held back.
        """
        tokenizer = self.session.tokenizer
        text = thinking.spelt(tokenizer, prompt, new, (thinking.OPEN, thinking.CLOSE, *calls.MARKS))
        text = thinking.answer_of(text, begun=thinking.begins(tokenizer, prompt), more=more)
        return text.rstrip("\ufffd") if more else text

    def replies(
        self,
        asked: Sequence[tuple[np.ndarray, Tools]],
        *,
        max_new_tokens: int,
        sampling: SamplingConfig = SamplingConfig(),
        seed: int = 0,
        constrained: bool = True,
    ) -> list[Reply]:
        """Generates the assistant's next turn of each conversation, as one batch.

        Args:
          asked: prompt ids `[T]` (`chat.encode_chat`) and functions of each conversation.
          constrained: whether the grammar constrains calls.
        """
        prompts = [prompt for prompt, _ in asked]
        rows = [self.constraint(tools, prompt) for prompt, tools in asked] if constrained else []
        allowed = self.allowed(rows) if constrained else None
        new = self.session.continue_ids(prompts, max_new_tokens, sampling, seed, allowed=allowed)
        replies = [tools.read(self.text_of(prompt, own)) for (prompt, tools), own in zip(asked, new)]
        # The token that ends a turn is not among the new ones.
        return [dataclasses.replace(reply, cut=len(own) >= max_new_tokens) for reply, own in zip(replies, new)]
