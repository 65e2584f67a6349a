"""Rows of sampled answers: each after its prompt, with the log-probabilities that its tokens were sampled with."""

import math
from collections.abc import Sequence
from typing import Generic, NamedTuple

import numpy as np
from jax.sharding import Mesh

from kanana_jax.data.stream import packing
from kanana_jax.data.stream.best_fit import best_fit
from kanana_jax.data.stream.encode import Example
from kanana_jax.data.stream.packing import Array, Rows
from kanana_jax.inference.rollout import Answer
from kanana_jax.parallel.sharding import RULES


class AnswerRows(NamedTuple, Generic[Array]):
    """Rows of answers whose tokens carry loss.

    Attributes:
      rows: the rows; each answer is a segment.
      log_probs: float32 `[R, T]`, log p of the targets when they were sampled; 0 for targets outside an answer.
      cuts: float32 `[R, T]`, likewise (`sampling.Draw`); None: the distribution was not cut.
    """

    rows: Rows[Array]
    log_probs: Array
    cuts: Array | None


class Packed(NamedTuple):
    """Rows of answers, on the host.

    Attributes:
      answers: the rows.
      index: int32 `[R, T]`, the answer that each target belongs to, numbered across all groups; −1 for none.
    """

    answers: AnswerRows[np.ndarray]
    index: np.ndarray


def answer_rows(
    groups: Sequence[Sequence[tuple[np.ndarray, Answer]]], seq_len: int, with_cuts: bool, counts: Sequence[int] = ()
) -> Packed:
    """Groups of (prompt, answer) packed into rows by best fit; a group stays in one row, in order.

    Args:
      counts: allowed numbers of rows, ascending: the smallest that holds everything is used, and padded. Empty: as
        many as needed.
    """
    capacity = seq_len + 1
    numbers = np.cumsum([0, *map(len, groups)])
    full = [i for i, group in enumerate(groups) if group]
    lengths = [sum(len(prompt) + len(answer.ids) for prompt, answer in groups[i]) for i in full]
    assert max(lengths, default=0) <= capacity  # the encoder has checked the prompts' lengths
    bins = [[full[i] for i in items] for items in best_fit(lengths, capacity)]
    count = next(n for n in counts if n >= len(bins)) if counts else max(1, len(bins))
    bins += [[]] * (count - len(bins))
    made = [_row([(numbers[i] + j, *one) for i in items for j, one in enumerate(groups[i])], seq_len) for items in bins]
    rows = Rows(*map(np.concatenate, zip(*(row for row, *_ in made))))
    log_probs, cuts, index = (np.stack(values) for values in zip(*(own for _, *own in made)))
    return Packed(AnswerRows(rows, log_probs, cuts if with_cuts else None), index)


def _row(answers: Sequence[tuple[int, np.ndarray, Answer]], T: int) -> tuple[Rows[np.ndarray], *tuple[np.ndarray, ...]]:
    log_probs, cuts = np.zeros(T + 1, np.float32), np.full(T + 1, -np.inf, np.float32)
    index = np.full(T + 1, -1, np.int32)
    examples, begin = [], 0
    for number, prompt, answer in answers:
        tokens = np.concatenate([prompt, answer.ids])
        weights = np.repeat(np.array([0, 1], np.float32), [len(prompt), len(answer.ids)])
        examples.append(Example(tokens, weights))
        own = slice(begin + len(prompt), begin + len(tokens))
        log_probs[own], cuts[own], index[own] = answer.log_probs, answer.cuts, number
        begin += len(tokens)
    rows = packing.pack([examples], T, whole=True) if answers else Rows(*map(np.zeros_like, packing.shapes(1, T)))
    return rows, log_probs[1:], cuts[1:], index[1:]


def row_counts(most: int, accumulate: int, mesh: Mesh) -> tuple[int, ...]:
    """The numbers of rows that a step may have, ascending: `most`, and a half, a quarter and an eighth of it.

    Only a few, as a step is compiled for each that occurs, and only those that the mesh and micro-batches divide.
    """
    unit = accumulate * math.prod(mesh.shape[axis] for axis in RULES["batch"])
    return tuple(most // parts for parts in (8, 4, 2, 1) if most % (parts * unit) == 0)


def shapes(rows: int, seq_len: int, with_cuts: bool) -> AnswerRows[np.ndarray]:
    """Shapes and dtypes, as arrays that use no memory."""
    by_token = np.broadcast_to(np.float32(0), (rows, seq_len))
    return AnswerRows(packing.shapes(rows, seq_len), by_token, by_token if with_cuts else None)
