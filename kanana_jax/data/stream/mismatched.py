"""Rows in which each prompt is followed by the answer to another: KTO's estimate of how far a policy has moved."""

from typing import NamedTuple

import numpy as np

from kanana_jax.data.stream.packing import Rows


class _Segment(NamedTuple):
    prompt: np.ndarray
    answer: np.ndarray
    weights: np.ndarray


def _segments(row: Rows[np.ndarray]) -> list[_Segment]:
    """Prompts and answers of a row; text after an answer is left out."""
    stream = np.append(row.inputs, row.targets[-1])
    weights = np.abs(np.append(0, row.weights))
    found = []
    for number in range(1, int(row.segment_ids.max(initial=0)) + 1):
        begin, end = np.flatnonzero(row.segment_ids == number)[[0, -1]] + (0, 2)
        weighs = begin + np.flatnonzero(weights[begin:end])
        if len(weighs):
            first, last = weighs[0], weighs[-1] + 1
            found.append(_Segment(stream[begin:first], stream[first:last], weights[first:last]))
    return found


def mismatched(row: Rows[np.ndarray]) -> Rows[np.ndarray]:
    """A row `[T]` with the prompts of another row in their order, each with the next answer to a different prompt.

    Prompts without one, and those that do not fit, are left out; a row with one prompt becomes empty.
    """
    T, segments = len(row.inputs), _segments(row)
    stream, ids, positions = (np.zeros(T + 1, np.int32) for _ in range(3))
    weights, at, count = np.zeros(T + 1, np.float32), 0, 0
    for i, own in enumerate(segments):
        others = (segments[(i + step) % len(segments)] for step in range(1, len(segments)))
        other = next((one for one in others if not np.array_equal(one.prompt, own.prompt)), None)
        if other is None or at + len(own.prompt) + len(other.answer) > T + 1:
            continue
        count += 1
        end = at + len(own.prompt) + len(other.answer)
        stream[at:end] = np.concatenate([own.prompt, other.answer])
        ids[at:end], positions[at:end] = count, np.arange(end - at)
        weights[at + len(own.prompt) : end] = other.weights
        at = end
    return Rows(stream[:-1], stream[1:], ids[:-1], positions[:-1], weights[1:], row.source)


def of_batch(rows: Rows[np.ndarray]) -> Rows[np.ndarray]:
    """`mismatched` of every row of a batch, `[B, T]`."""
    return Rows(*(np.stack(parts) for parts in zip(*(mismatched(Rows(*row)) for row in zip(*rows)))))
