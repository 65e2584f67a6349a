"""Embedding of a file's texts, block by block; an interrupted job resumes after its last complete block.

An output folder holds `about.json` (the settings that determine the vectors) and two files per block: `NNNNNN.npy`,
float32 or float16 `[n, D]`, and `NNNNNN.json`, the ids of the texts in the same order and the counts so far. A block is
complete once its `.json` exists.
"""

import dataclasses
import itertools
import logging
import pathlib
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

import numpy as np

from kanana_jax.applications.embedder import Embedder
from kanana_jax.data.read import records
from kanana_jax.data.read.origins import identify
from kanana_jax.data.read.record import Broken
from kanana_jax.errors import UserError
from kanana_jax.files import locked, read_json, whole_file, write_json

log = logging.getLogger("kanana")
ABOUT, COUNTS = "about.json", "counts.json"
NAMES = ("records", "texts", "empty", "broken", "repeated", "cut")


@dataclasses.dataclass(frozen=True)
class EmbedConfig:
    """Settings of an embedding job.

    Attributes:
      text_field: name of the field of an input record that holds the text.
      instruction: text prepended to every text.
      block: number of texts per file of vectors.
      dtype: dtype of the vectors on disk.
    """

    text_field: str = "text"
    instruction: str = ""
    block: int = 4096
    dtype: Literal["float32", "float16"] = "float32"


class _Text(NamedTuple):
    id: str
    text: str


def embed_file(
    embedder: Embedder,
    path: str,
    output: pathlib.Path,
    config: EmbedConfig = EmbedConfig(),
    *,
    model: str = "",
    show: Callable[[int], None] = lambda texts: None,
) -> dict[str, int]:
    """Embeds the texts of a file or folder, in the order in which `records.read` yields them.

    Empty texts and broken records get no vector, and of texts with the same id only the first does; all are counted.

    Args:
      model: fingerprint of the model; a folder with another model's vectors is refused.
      show: called with the number of texts embedded so far.

    Returns:
      Counts by `NAMES`: records read, vectors written (`texts`), empty texts, broken records, repeated ids, and texts
      that were truncated (`cut`). `records` is the sum of `texts`, `empty`, `broken` and `repeated`.

    Raises:
      UserError: the folder holds vectors of another model, input or configuration, or the input has no text.
    """
    about = {
        "model": model,
        "embedding": embedder.about.to_dict(),
        "dim": embedder.dim,
        "input": [origin.digest for origin in identify(records.find(path))],
        **dataclasses.asdict(config),
    }
    with locked(output):
        check_about(output, about)
        counts, ids, number = _resumed(output)
        broken: list[Broken] = []
        fresh = _texts(path, config, counts, ids, broken)
        while block := list(itertools.islice(fresh, config.block)):
            read = embedder.read([one.text for one in block], config.instruction)
            # The tokenizer's normalisation may remove a text completely; such a text counts as empty.
            kept = [i for i, one in enumerate(read) if one.counted]
            ids -= {own.id for own, one in zip(block, read) if not one.counted}
            counts["texts"] += len(kept)
            counts["empty"] += len(read) - len(kept)
            counts["cut"] += sum(one.left_out > 0 for one in read)
            values = embedder.vectors([read[i] for i in kept]).astype(config.dtype)
            # `fresh` is lazy, so the counts cover the input up to this block's last text, or up to its end.
            write_block(output, number, values, {"ids": [block[i].id for i in kept], "counts": counts})
            number += 1
            show(counts["texts"])
        first = f"{broken[0].where}: {broken[0].reason}" if broken else ""
        if not counts["texts"]:
            problem = f"{path} holds no text with letters in field '{config.text_field}'"
            raise UserError(f"{problem}{f' ({first})' if first else ''}: nothing to embed")
        if first:
            log.warning("%d invalid records have no vector; the first: %s", counts["broken"], first)
        write_json(output / COUNTS, counts)
    return counts


def write_block(output: pathlib.Path, number: int, values: np.ndarray, entry: dict[str, Any]) -> None:
    """Writes a block's vectors, then its entry (`ids` and counts), which marks the block as complete."""
    told = output / f"{number:06d}.json"
    if told.is_file():  # left over where an earlier block was removed by hand: it must not describe the new vectors
        told.unlink()
    with whole_file(told.with_suffix(".npy")) as file, file.open("wb") as stream:
        np.save(stream, values, allow_pickle=False)
    write_json(told, entry, indent=None)


def check_about(output: pathlib.Path, about: dict[str, Any]) -> None:
    """Records the settings that determine the vectors, or compares them with those of an earlier start.

    Raises:
      UserError: the settings differ.
    """
    file = output / ABOUT
    if not file.is_file():
        write_json(file, about)
        return
    known = read_json(file)
    other = sorted(key for key in about.keys() | known.keys() if about.get(key) != known.get(key))
    if other:
        raise UserError(
            f"{output} holds vectors made with other {' and '.join(other)}: name another folder, or remove this one"
        )


def _resumed(output: pathlib.Path) -> tuple[dict[str, int], set[str], int]:
    """Counts, ids and number of the complete blocks."""
    counts, ids, number = dict.fromkeys(NAMES, 0), set[str](), 0
    while (file := output / f"{number:06d}.json").is_file():
        entry = read_json(file)
        counts, number = entry["counts"], number + 1
        ids.update(entry["ids"])
    return counts, ids, number


def _texts(
    path: str, config: EmbedConfig, counts: dict[str, int], ids: set[str], broken: list[Broken]
) -> Iterator[_Text]:
    """Texts with new ids from the records that earlier blocks have not covered; updates `counts` and `ids`."""
    found = records.read(path, text_field=config.text_field, source="texts")
    for record in itertools.islice(found, counts["records"], None):
        counts["records"] += 1
        if isinstance(record, Broken):
            empty = record.reason.endswith("is empty")
            counts["empty" if empty else "broken"] += 1
            if not empty and not broken:
                broken.append(record)
        elif record["id"] in ids:
            counts["repeated"] += 1
        else:
            ids.add(record["id"])
            yield _Text(record["id"], record["text"])


def load_vectors(output: pathlib.Path) -> tuple[list[str], np.ndarray]:
    """Ids and vectors `[N, D]` of a finished folder.

    Raises:
      UserError: the job is not finished, or a file is damaged.
    """
    if not (output / COUNTS).is_file():
        raise UserError(f"{output} holds no finished vectors: run `kanana embed` to its end")
    blocks = list(read_blocks(output))
    return [one for ids, _ in blocks for one in ids], np.concatenate([values for _, values in blocks])


def read_blocks(output: pathlib.Path) -> Iterator[tuple[list[str], np.ndarray]]:
    """Ids and vectors `[n, D]` of each complete block.

    Raises:
      UserError: a file is damaged.
    """
    number = 0
    while (file := output / f"{number:06d}.json").is_file():
        ids, values = read_json(file)["ids"], file.with_suffix(".npy")
        try:
            part = np.load(values, allow_pickle=False)
        except (OSError, ValueError) as error:
            raise UserError(f"{values} is damaged: remove it and its .json, and embed again") from error
        if len(part) != len(ids):
            raise UserError(f"{values} has {len(part)} vectors for {len(ids)} ids: embed again")
        yield ids, part
        number += 1
