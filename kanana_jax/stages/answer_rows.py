"""Rows of sampled answers: each behind its prompt, with what its tokens were drawn with."""

from collections.abc import Sequence
from typing import Generic, NamedTuple

import numpy as np

from kanana_jax.data.stream import packing
from kanana_jax.data.stream.encode import Example
from kanana_jax.data.stream.packing import Array, Rows
from kanana_jax.inference.rollout import Answer


class AnswerRows(NamedTuple, Generic[Array]):
    """Rows of answers, whose tokens carry loss.

    Attributes:
      rows: an answer is a segment.
      log_probs: float32 `[R, T]` of the targets, as they were drawn; 0 where a target is no token of an answer.
      cuts: float32 `[R, T]`, likewise (`sampling.Draw`); None: nothing was cut of the distribution.
    """

    rows: Rows[Array]
    log_probs: Array
    cuts: Array | None


def answer_rows(
    groups: Sequence[Sequence[tuple[np.ndarray, Answer]]], seq_len: int, with_cuts: bool
) -> AnswerRows[np.ndarray]:
    """A row for each group of (prompt, answer); one without any is padding."""
    made = [_row(group, seq_len) for group in groups]
    rows = Rows(*map(np.concatenate, zip(*(rows for rows, _, _ in made))))
    log_probs, cuts = (np.stack(values) for values in zip(*((log_p, cut) for _, log_p, cut in made)))
    return AnswerRows(rows, log_probs, cuts if with_cuts else None)


def _row(group: Sequence[tuple[np.ndarray, Answer]], T: int) -> tuple[Rows[np.ndarray], np.ndarray, np.ndarray]:
    log_probs, cuts = np.zeros(T + 1, np.float32), np.full(T + 1, -np.inf, np.float32)
    if not group:
        return Rows(*(np.zeros_like(x) for x in packing.shapes(1, T))), log_probs[1:], cuts[1:]
    examples, begin = [], 0
    for prompt, answer in group:
        tokens = np.concatenate([prompt, answer.ids])
        weights = np.repeat(np.array([0, 1], np.float32), [len(prompt), len(answer.ids)])
        examples.append(Example(tokens, weights))
        end = begin + len(tokens)
        log_probs[begin + len(prompt) : end] = answer.log_probs
        cuts[begin + len(prompt) : end] = answer.cuts
        begin = end
    rows = packing.pack([examples], T, whole=True)
    assert rows.inputs.shape[0] == 1 and begin <= T + 1  # prompts were measured by the encoder
    return rows, log_probs[1:], cuts[1:]


def shapes(rows: int, seq_len: int, with_cuts: bool) -> AnswerRows[np.ndarray]:
    """Shapes and dtypes, as arrays that take no memory."""
    by_token = np.broadcast_to(np.float32(0), (rows, seq_len))
    return AnswerRows(packing.shapes(rows, seq_len), by_token, by_token if with_cuts else None)
