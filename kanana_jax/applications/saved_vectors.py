"""A cache of document vectors on disk, so that each model embeds a text only once.

The folder holds blocks in the format of `embed_file`: `NNNNNN.npy` and `NNNNNN.json`, whose ids are hashes of the
texts. Only texts that are in no block are embedded; an interrupted call keeps the blocks that it has completed.
"""

import hashlib
import pathlib
from collections.abc import Callable, Sequence

import numpy as np

from kanana_jax.applications.embed_file import check_about, read_blocks, write_block
from kanana_jax.applications.embedder import Embedder, warn_cut
from kanana_jax.files import locked
from kanana_jax.interop import model_folder
from kanana_jax.progress import shown

_BLOCK = 1024  # texts


def saved_vectors(
    embedder: Embedder,
    texts: Sequence[str],
    folder: pathlib.Path,
    model: str,
    show: Callable[[int, int], None] = lambda done, whole: None,
) -> np.ndarray:
    """Document vectors of texts, float32 `[N, D]`: read from the folder, or embedded and added to it.

    Args:
      model: fingerprint of the model and its dtype; a folder with another model's vectors is refused.
      show: called with the number of new texts embedded so far, and the number of all new texts.

    Raises:
      UserError: the folder holds vectors of another model or a damaged file, or a text is empty.
    """
    keys = [_key(text) for text in texts]
    with locked(folder):
        check_about(folder, {"model": model, "embedding": embedder.about.to_dict(), "dim": embedder.dim, "by": "text"})
        blocks = list(read_blocks(folder))
        held = {key: (number, row) for number, (ids, _) in enumerate(blocks) for row, key in enumerate(ids)}
        missing = {key: text for key, text in zip(keys, texts) if key not in held}
        new, left_out = list(missing), list[np.ndarray]()
        for start in range(0, len(new), _BLOCK):
            part = new[start : start + _BLOCK]
            values, cut = embedder([missing[key] for key in part])
            left_out.append(cut)
            held |= {key: (len(blocks), row) for row, key in enumerate(part)}
            write_block(folder, len(blocks), values, {"ids": part})
            blocks.append((part, values))
            show(start + len(part), len(new))
    if left_out:
        warn_cut(np.concatenate(left_out))
    found = np.empty((len(texts), embedder.dim), np.float32)
    for place, key in enumerate(keys):
        number, row = held[key]
        found[place] = blocks[number][1][row]
    return found


def keeper(
    embedder: Embedder, path: str, dtype: str, folder: pathlib.Path | None
) -> Callable[[Sequence[str]], np.ndarray] | None:
    """A function from texts to vectors that caches in `folder` and shows progress; None without a folder.

    Args:
      path: the model's folder, whose fingerprint is stored with the vectors.
      dtype: dtype of the model's parameters and computation.
    """
    if folder is None:
        return None
    model = f"{model_folder.fingerprint(model_folder.find(path))} {dtype}"

    def vectors(texts: Sequence[str]) -> np.ndarray:
        with shown("vectors") as update:
            show = lambda done, whole: update(f"{done:,} of {whole:,} new texts", None)  # noqa: E731
            return saved_vectors(embedder, texts, folder, model, show)

    return vectors


def _key(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
