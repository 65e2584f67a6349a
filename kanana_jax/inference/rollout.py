"""Sampled answers to learn from: several per prompt, with the log-probability of every token.

The one loop of every stage that trains on its model's own text. Log-probabilities refer to the distribution that was
sampled from, including temperature and top-p, since a ratio to any other would not be 1 for unchanged parameters. The
token that ends an answer is sampled like any other, and belongs to it.
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
      max_new_tokens: most tokens of an answer, including its end; a longer one is cut off there.
      sampling: temperature, above 0, and cuts of the distribution.
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
            raise ValueError("sampling.temperature must be above 0: otherwise all answers to a prompt are the same")


class Answer(NamedTuple):
    """An answer.

    Attributes:
      ids: int32 `[n]`, n ≥ 1, including the token that ends it.
      log_probs: float32 `[n]`, nats, of each id under the distribution that it was sampled from.
      cuts: float32 `[n]`, the cut of that distribution (`sampling.Draw`).
      ended: whether it ended by itself; otherwise it was cut off by its length.
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
    """N answers to each prompt, on the current mesh.

    Args:
      prompts: int32 ids, by the chat template.
      stop: ids that end an answer.
      tokens: number of the tokenizer's tokens.
      key: sampling depends only on the key and the indices of prompt and answer.
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
