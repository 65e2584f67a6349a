"""A loaded model and its tokenizer: text in, text out."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from kanana_jax.data.tokens import chat
from kanana_jax.data.tokens.tokenizer import Tokenizer, continuation, encode_prompt, load_tokenizer
from kanana_jax.errors import ConfigError, UserError
from kanana_jax.inference import thinking
from kanana_jax.inference.generate import Allowed, generate
from kanana_jax.inference.sampling import SamplingConfig
from kanana_jax.interop import model_folder
from kanana_jax.interop.card import CARD
from kanana_jax.models.architecture import DType, Runtime
from kanana_jax.models.model import Model
from kanana_jax.models.transformer import Params
from kanana_jax.parallel.mesh import MeshConfig, make_mesh

_SHOWN_EVERY = 4  # tokens


@dataclasses.dataclass(frozen=True)
class Session:
    """A loaded model that generates text."""

    model: Model
    params: Params
    tokenizer: Tokenizer
    mesh: Mesh

    @staticmethod
    def load(
        path: str,
        dtype: DType = "float32",
        devices: list[jax.Device] | None = None,
        add_bos: bool | None = None,
        *,
        writes: bool = True,
    ) -> "Session":
        """Loads a model, stage or Hugging Face folder, sharded over all devices or the given ones.

        Args:
          add_bos: whether BOS precedes a text; None: as in the folder's tokenizer.
          writes: whether it must generate text, which a model with bidirectional attention cannot.

        Raises:
          UserError: no model or tokenizer found, the two do not fit, or the model cannot generate text.
        """
        found = model_folder.find(path)
        if writes and found.embedding is not None and not found.embedding.causal:
            raise UserError(
                f"{found.path} attends to both sides: it embeds texts (kanana embed), but cannot write them"
            )
        tokenizer, noted = load_tokenizer(found.path, add_bos), found.card.get("tokenizer")
        if noted is not None and noted != tokenizer.fingerprint:
            raise UserError(
                f"{found.path}: its tokenizer is not the one that the model was trained with ({noted[:12]}…, not "
                f"{tokenizer.fingerprint[:12]}…): restore the file, or remove 'tokenizer' from its {CARD}"
            )
        if tokenizer.vocab_size > found.architecture.vocab_size:
            raise UserError(
                f"{found.path}: the tokenizer has {tokenizer.vocab_size} pieces, "
                f"the model {found.architecture.vocab_size}"
            )
        runtime = Runtime(param_dtype=dtype, compute_dtype=dtype)
        # Weights are sharded over as many devices as divide them; the others hold copies, for other rows.
        count = len(jax.devices() if devices is None else devices)
        mesh = make_mesh(MeshConfig(data=-1, fsdp=math.gcd(count, found.architecture.embed_dim)), devices)
        model = Model(found.architecture, runtime)
        return Session(model, model_folder.load_params(found, runtime, mesh), tokenizer, mesh)

    def continue_texts(
        self, prompts: Sequence[str], *, max_new_tokens: int, sampling: SamplingConfig, seed: int
    ) -> list[str]:
        """Each prompt with its continuation."""
        ids = [encode_prompt(self.tokenizer, p) for p in prompts]
        outputs = self.continue_ids(ids, max_new_tokens, sampling, seed)
        return [text + continuation(self.tokenizer, p, out) for text, p, out in zip(prompts, ids, outputs)]

    @property
    def stop_ids(self) -> list[int]:
        """The end tokens named in the folder's files; ids that the model cannot write are ignored."""
        return sorted(i for i in self.tokenizer.end_ids if 0 <= i < self.model.architecture.vocab_size)

    def answer(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        max_new_tokens: int,
        sampling: SamplingConfig,
        seed: int,
        tools: Sequence[Mapping[str, Any]] | None = None,
        strip_thinking: bool = False,
        show: Callable[[str], None] | None = None,
    ) -> str:
        """The assistant's next turn, by the folder's chat template.

        Args:
          tools: JSON schemas of functions that it may call.
          strip_thinking: leave out `<think>…</think>`.
          show: called with each new part of the turn as it is written.
        """
        prompt = chat.encode_chat(self.tokenizer, messages, tools)
        shown = ""

        def look(_row: int, new: np.ndarray) -> bool:
            nonlocal shown
            now = self.text_of(prompt, new, strip_thinking=strip_thinking, more=True)
            if show is not None and now.startswith(shown):
                show(now[len(shown) :])
                shown = now
            return False

        (new,) = self.continue_ids([prompt], max_new_tokens, sampling, seed, None if show is None else look)
        whole = self.text_of(prompt, new, strip_thinking=strip_thinking)
        if show is not None:
            show(whole[len(shown) :])
        return whole

    def text_of(self, prompt: np.ndarray, new: np.ndarray, *, strip_thinking: bool = False, more: bool = False) -> str:
        """The text that new ids add to a prompt's.

        Args:
          strip_thinking: leave out `<think>…</think>`.
          more: whether more will follow: then half a character or half a tag at the end is left out.
        """
        if strip_thinking:
            begun = thinking.begins(self.tokenizer, prompt)
            text = thinking.answer_of(thinking.spelt(self.tokenizer, prompt, new), begun=begun, more=more)
        else:
            text = continuation(self.tokenizer, prompt, new)
        return text.rstrip("\ufffd") if more else text

    def continue_ids(
        self,
        prompts: Sequence[np.ndarray],
        max_new_tokens: int,
        sampling: SamplingConfig,
        seed: int,
        look: Callable[[int, np.ndarray], bool] | None = None,
        look_every: int = _SHOWN_EVERY,
        allowed: Allowed | None = None,
    ) -> list[np.ndarray]:
        """The ids that follow each prompt.

        Args:
          look: called with a prompt's index and its new ids, every `look_every` of them; the row ends where
            it returns True.
          allowed: the tokens that may be sampled next.

        Raises:
          UserError: a prompt that is too long.
        """
        if max_new_tokens < 0:
            raise ConfigError(f"--max-new-tokens must be at least 0, not {max_new_tokens}")
        longest = max(len(p) for p in prompts)
        if max_new_tokens and longest + max_new_tokens > self.model.architecture.max_seq_len:
            raise UserError(
                f"a prompt of {longest} tokens plus {max_new_tokens} new ones exceeds the model's "
                f"{self.model.architecture.max_seq_len}: shorten the prompt or lower --max-new-tokens"
            )
        with jax.set_mesh(self.mesh):
            return generate(
                self.params,
                self.model,
                prompts,
                max_new_tokens=max_new_tokens,
                sampling=sampling,
                stop=self.stop_ids,
                tokens=self.tokenizer.vocab_size,
                seed=seed,
                finished=look,
                check_every=32 if look is None else look_every,
                allowed=allowed,
            )
