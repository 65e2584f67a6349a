"""Mismatched rows: every prompt with the answer to another, computed as alone."""

import numpy as np

from kanana_jax.data.stream import mismatched, packing
from kanana_jax.data.stream.encode import Example


def _example(prompt, answer, sign=1, behind=()):
    weights = np.array([0.0] * len(prompt) + [sign] * len(answer) + [0.0] * len(behind), np.float32)
    return Example(np.array([*prompt, *answer, *behind], np.int32), weights)


def _found(row):
    """Of each segment: its prompt, its answer."""
    stream, weights = np.append(row.inputs, row.targets[-1]), np.append(0, row.weights)
    ids = np.append(row.segment_ids, row.segment_ids[-1] if row.weights[-1] else 0)
    parts = []
    for number in range(1, ids.max() + 1):
        mine = ids == number
        parts.append((stream[mine & (weights == 0)].tolist(), stream[mine & (weights == 1)].tolist()))
    return parts


def test_prompts_get_the_next_answer_to_another_prompt():
    records = [
        (_example([1, 2], [3, 4], 1, [9]), _example([1, 2], [5, 6], -1)),
        (_example([7, 8, 9], [10, 11]),),
        (_example([12], [13, 14], -1),),
    ]
    row = packing.Rows(*(x[0] for x in packing.pack(records, 20, whole=True)))
    made = mismatched.mismatched(row)
    assert _found(made) == [([1, 2], [10, 11]), ([1, 2], [10, 11]), ([7, 8, 9], [13, 14]), ([12], [3, 4])]
    assert made.positions[made.segment_ids == 3].tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(made.inputs[1:], made.targets[:-1])


def test_one_prompt_has_none_and_what_has_no_room_is_left_out():
    pair = (_example([1, 2], [3, 4]), _example([1, 2], [5, 6], -1))
    rows = packing.pack([pair], 8, whole=True)
    assert not mismatched.of_batch(rows).segment_ids.any()
    full = packing.pack(
        [(_example([1], [2, 3, 4, 5, 6, 7]), _example([1], [8, 9]), _example([2], [3]))], 11, whole=True
    )
    found = mismatched.of_batch(full)
    assert _found(packing.Rows(*(x[0] for x in found))) == [([1], [3]), ([1], [3]), ([2], [2, 3, 4, 5, 6, 7])]
    records = [(_example([1], [2]),), (_example([1], [3]),), (_example([4], [5, 6, 7, 8, 9, 10]),)]
    found = mismatched.of_batch(packing.pack(records, 10, whole=True))
    assert _found(packing.Rows(*(x[0] for x in found))) == [([1], [5, 6, 7, 8, 9, 10]), ([4], [2])]
