"""Answers that a model samples to learn from: several to each prompt, with the log-probability of every token.

The one loop of every stage that trains on what its model writes. Log-probabilities are those of the distribution that
was drawn from, temperature and top-p included, since a ratio to any other is not 1 where nothing has changed. The token
that ends an answer is drawn like any other, and belongs to it.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from kanana_jax.inference.generate import write
from kanana_jax.inference.sampling import SamplingConfig
from kanana_jax.models.model import Model
from kanana_jax.models.transformer import Params


@dataclasses.dataclass(frozen=True)
class RolloutConfig:
    """Sampling of answers.

    Attributes:
      samples: answers to each prompt, N.
      max_new_tokens: of an answer, its end included; a longer one is cut off there.
      sampling: temperature, above 0, and what is cut of the distribution.
    """

    samples: int = 8
    max_new_tokens: int = 256
    sampling: SamplingConfig = SamplingConfig(temperature=1.0)

    def __post_init__(self):
        if self.samples < 1 or self.max_new_tokens < 1:
            raise ValueError(
                f"samples and max_new_tokens must be at least 1, not {self.samples} and {self.max_new_tokens}"
            )
        if self.sampling.temperature == 0:
            raise ValueError("sampling.temperature must be above 0: without chance all answers to a prompt are one")


class Answer(NamedTuple):
    """An answer.

    Attributes:
      ids: int32 `[n]`, n ≥ 1, the token that ends it included.
      log_probs: float32 `[n]`, nats, of each under the distribution that it was drawn from.
      cuts: float32 `[n]`, where that distribution ends (`sampling.Draw`).
      ended: whether it ended by itself; else it was cut off by its length.
    """

    ids: np.ndarray
    log_probs: np.ndarray
    cuts: np.ndarray
    ended: bool


def rollout(
    params: Params,
    model: Model,
    prompts: Sequence[np.ndarray],
    config: RolloutConfig,
    *,
    stop: Sequence[int],
    tokens: int,
    key: jax.Array,
    width: int = 0,
) -> list[list[Answer]]:
    """N answers to each prompt, on the mesh that is set.

    Args:
      prompts: int32 ids, by the chat template.
      stop: ids that end an answer.
      tokens: of the tokenizer.
      key: the draws are a function of it, of a prompt's place and of an answer's.
      width: see `generate.write`.
    """
    each = [prompt for prompt in prompts for _ in range(config.samples)]
    written = write(
        params,
        model,
        each,
        max_new_tokens=config.max_new_tokens,
        sampling=config.sampling,
        stop=stop,
        tokens=tokens,
        key=key,
        noted=True,
        width=width,
    )
    ends = set(stop)
    answers = [Answer(*one, bool(int(one.ids[-1]) in ends)) for one in written]
    return [answers[i : i + config.samples] for i in range(0, len(answers), config.samples)]
