"""Function calls: a turn of the assistant in which the arguments of every call fit the function's schema.

Tools and calls are OpenAI's (`tools`, `tool_calls`), the text between is the chat template's (`data.tokens.calls`). A
call's name and arguments are written under a grammar; text and thinking are free. Nothing is executed.
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
    """What a turn may be.

    Attributes:
      kind: `auto`: text or calls; `required`: at least one call; `none`: text.
      function: the only one that may be called; "": any.
      parallel: several calls may be made at once.
    """

    kind: Literal["auto", "required", "none"] = "auto"
    function: str = ""
    parallel: bool = True


@dataclasses.dataclass(frozen=True)
class Tools:
    """Functions that a turn may call, in a model's format.

    Attributes:
      schemas: of the parameters by name.
      grammar: of the turn.
    """

    form: calls.Name
    schemas: Mapping[str, calls.Schema]
    grammar: str

    def read(self, text: str) -> Reply:
        """The calls of a turn's text, thinking left out."""
        return calls.read(text, self.form, self.schemas)


class Caller:
    """A model that calls functions; one per session, since its vocabulary is read once.

    Raises:
      ConfigError: the extra `calls` is not installed.
      UserError: a chat template with calls in another format, or a tokenizer that grammars cannot be written for.
    """

    def __init__(self, session: Session):
        self.session = session
        self._form = calls.format_of(session.tokenizer.chat.template(True))
        self._vocabulary = Vocabulary.of(session.tokenizer, session.stop_ids)

    def tools(self, tools: Sequence[Mapping[str, Any]], choice: Choice = Choice()) -> Tools:
        """Checks functions for a turn.

        Raises:
          UserError: a tool that is none, a choice of a function that is not there, or a schema with a keyword that
            cannot be guaranteed.
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
        """The grammar beside one answer."""
        return Constraint(self._vocabulary, tools.grammar, prompt)

    def allowed(self, constraints: Sequence[Constraint | None]) -> Allowed:
        """The words of a batch, one constraint a prompt; None: any token."""
        return followed(constraints, self._vocabulary.size)

    def text_of(self, prompt: np.ndarray, new: np.ndarray, *, more: bool = False) -> str:
        """The text that new ids add to a prompt's without its thinking, marks of calls spelt out."""
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
        """The assistant's next turn of each conversation, written as one batch.

        Args:
          asked: the prompt's ids (`chat.encode_chat`) of each conversation, and its functions.
          constrained: whether calls are written under a grammar.
        """
        prompts = [prompt for prompt, _ in asked]
        rows = [self.constraint(tools, prompt) for prompt, tools in asked] if constrained else []
        allowed = self.allowed(rows) if constrained else None
        new = self.session.continue_ids(prompts, max_new_tokens, sampling, seed, allowed=allowed)
        return [tools.read(self.text_of(prompt, own)) for (prompt, tools), own in zip(asked, new)]
