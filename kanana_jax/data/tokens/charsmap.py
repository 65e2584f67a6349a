"""Safety check of the character map of a SentencePiece normaliser.

A map is the size of a double-array trie in bytes, the trie's 32-bit units (github.com/s-yata/darts-clone), and the
normalised strings, each ended by a zero byte. A library that walks a damaged one reads outside of it.
"""

import numpy as np


def sound(data: bytes) -> bool:
    """Returns whether every path through the trie stays in it, and every value is the start of a whole character."""
    if len(data) < 4:
        return False
    size = int.from_bytes(data[:4], "little")
    if not size or size % 4 or size > len(data) - 4:
        return False
    units, strings = np.frombuffer(data[4 : 4 + size], "<u4"), data[4 + size :]
    if not strings.endswith(b"\0"):
        return False
    try:
        strings.decode("utf-8")
    except UnicodeDecodeError:
        return False
    starts = np.ones(len(strings) + 1, bool)
    starts[:-1] = (np.frombuffer(strings, np.uint8) & 0xC0) != 0x80
    labels = np.arange(1, 256, dtype=np.int64)
    seen = np.zeros(len(units), bool)
    frontier = np.array([_offset(units[:1])[0]])  # positions from which a byte leads on
    while len(frontier):
        if (frontier | 0xFF).max() >= len(units):
            return False
        frontier = np.unique(frontier[~seen[frontier]])
        seen[frontier] = True
        places = (frontier[:, None] ^ labels).reshape(-1)
        found = units[places]
        taken = (found & 0x800000FF) == np.tile(labels, len(frontier))
        places, found = places[taken], found[taken]
        following = places ^ _offset(found)
        if len(following) and following.max() >= len(units):
            return False
        values = (units[following[(found >> 8 & 1).astype(bool)]] & 0x7FFFFFFF).astype(np.int64)
        if len(values) and (values.max() > len(strings) or not starts[values].all()):
            return False
        frontier = following
    return True


def _offset(units: np.ndarray) -> np.ndarray:
    units = units.astype(np.int64)
    return (units >> 10) << ((units & (1 << 9)) >> 6)
