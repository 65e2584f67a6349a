"""The keys by which duplicates are found, and their file, so that a later run need not read documents again."""

import dataclasses
import pathlib
from collections.abc import Iterator, Sequence

import numpy as np

from kanana_jax import languages
from kanana_jax.data.arrays import tables
from kanana_jax.data.dedup import clusters, minhash, verdicts
from kanana_jax.data.dedup.minhash import MinHashConfig
from kanana_jax.data.read import origins as origins_lib
from kanana_jax.data.read import records
from kanana_jax.data.read.origins import Origin
from kanana_jax.data.read.record import PLACE, Broken, Record
from kanana_jax.errors import ConfigError, UserError

FILE = "index.safetensors"
BATCH = 64  # documents
_ARRAYS = ("bands", "sketches", "texts", "lengths", "quality", "numbers", "checks")
_TABLE = {
    **{"bands": ("U64", 2), "sketches": ("U8", 2), "texts": ("U64", 2), "lengths": ("I64", 1), "quality": ("F64", 1)},
    **{"numbers": ("I64", 1), "checks": ("U32", 1), "items": ("I64", 1), "documents": ("I64", 1)},
    **{"origins": ("U8", 1), "ids": ("U8", 1)},
}
_FORMAT = 3  # format 2 had no sketches


@dataclasses.dataclass(frozen=True)
class DedupConfig:
    """Criteria for duplicates and for the document that is kept.

    Attributes:
      hashing: the hash functions and shingles.
      threshold: the least Jaccard similarity of near duplicates (Gopher's 0.8, arXiv:2112.11446, §A.1.1).
      keep: the first document in input order, the longest, or the best by `meta[quality]`.
      quality: the key in `meta` of a document's quality.
      lang: the language of records without one.
    """

    hashing: MinHashConfig = MinHashConfig()
    threshold: float = 0.8
    keep: clusters.Keep = "first"
    quality: str = "quality"
    lang: str = "default"

    def __post_init__(self):
        object.__setattr__(self, "lang", languages.tag(self.lang))
        if not 0 < self.threshold <= 1:
            raise ValueError(f"threshold must be in (0, 1], not {self.threshold}")


@dataclasses.dataclass(frozen=True)
class Index:
    """Keys of `N` documents.

    Attributes:
      ids: the documents' ids, which may repeat.
      bands: uint64 `[N, bands]`; all zeros where a text has no shingle.
      sketches: uint8 `[N, bins]`.
      texts: a 16-byte hash of each text, `[N, 2]` uint64.
      lengths: characters, `[N]`.
      quality: `[N]`, NaN if the record has none.
      numbers: each document's number within its origin, int64 `[N]`.
      checks: `verdicts.check_of` each text, uint32 `[N]`.
    """

    ids: list[str]
    bands: np.ndarray
    sketches: np.ndarray
    texts: np.ndarray
    lengths: np.ndarray
    quality: np.ndarray
    numbers: np.ndarray
    checks: np.ndarray

    def part(self, begin: int, end: int) -> "Index":
        """Documents `[begin, end)`."""
        return Index(self.ids[begin:end], *(getattr(self, name)[begin:end] for name in _ARRAYS))


def join(parts: Sequence[Index]) -> Index:
    """Concatenates at least one part."""
    ids = [identity for part in parts for identity in part.ids]
    return Index(ids, *(np.concatenate([getattr(part, name) for part in parts]) for name in _ARRAYS))


def index(items: Iterator[Record | Broken], config: DedupConfig) -> Index:
    """Computes the keys of documents in one pass; broken lines are skipped."""
    ids, rows, sketches, texts, lengths, quality, numbers, checks = [], [], [], [], [], [], [], []

    def work(batch: Sequence[Record]) -> None:
        for lang in {r.get("lang", config.lang) for r in batch}:
            shingles = config.hashing.shingles.get(lang, config.hashing.shingles["default"])
            own = [i for i, r in enumerate(batch) if r.get("lang", config.lang) == lang]
            for i, found in zip(own, minhash.shingle_hashes([batch[i]["text"] for i in own], shingles)):
                keys = minhash.band_keys(found, config.hashing) if len(found) else nothing
                of_batch[i] = keys, minhash.sketch(found, config.hashing)
        for i in range(len(batch)):
            rows.append(of_batch[i][0])
            sketches.append(of_batch[i][1])
        for record in batch:
            ids.append(record["id"])
            texts.append(np.frombuffer(minhash.text_key(record["text"]), np.uint64))
            lengths.append(len(record["text"]))
            value = record.get("meta", {}).get(config.quality)
            quality.append(float(value) if isinstance(value, (int, float)) else np.nan)
            numbers.append(record[PLACE][2])
            checks.append(verdicts.check_of(record["text"]))

    nothing = np.zeros(config.hashing.bands, np.uint64)
    of_batch: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    for some in records.batches(items, BATCH):
        work([item for item in some if isinstance(item, dict)])
    return Index(
        ids,
        np.array(rows, np.uint64).reshape(-1, config.hashing.bands),
        np.array(sketches, np.uint8).reshape(-1, config.hashing.bins),
        np.array(texts, np.uint64).reshape(-1, 2),
        np.array(lengths, np.int64),
        np.array(quality, np.float64),
        np.array(numbers, np.int64),
        np.array(checks, np.uint32),
    )


@dataclasses.dataclass(frozen=True)
class Read:
    """An origin that has been read.

    Attributes:
      items: number of lines in it, documents or not.
      index: the keys of its documents.
    """

    origin: Origin
    items: int
    index: Index


def save(folder: pathlib.Path, digest: str, found: Sequence[Read]) -> None:
    """Writes everything that was read, atomically.

    Raises:
      UserError: the disk is full or not writable.
    """
    whole = join([read.index for read in found])
    arrays = {name: getattr(whole, name) for name in _ARRAYS}
    arrays["items"] = np.array([read.items for read in found], np.int64)
    arrays["documents"] = np.array([len(read.index.ids) for read in found], np.int64)
    arrays["origins"] = tables.as_bytes([read.origin.row for read in found])
    arrays["ids"] = tables.as_bytes(whole.ids)
    tables.write(folder / FILE, {"format": _FORMAT, "config_hash": digest}, arrays)


def load(folder: pathlib.Path, digest: str) -> list[Read]:
    """Reads the saved entries; empty if there are none.

    Raises:
      ConfigError: they were written with another config or by an older version.
      UserError: the file is damaged.
    """
    file = folder / FILE
    older = ConfigError(f"{folder} was started by an older version: name another --output")
    if (folder / "index.json").is_file() and not file.is_file():
        raise older
    if not file.is_file():
        return []
    try:
        about, arrays = tables.read(file)
        if about.get("format") == 2:
            raise older
        if about.get("format") != _FORMAT or tables.kinds_of(arrays) != _TABLE:
            raise ValueError("it holds something else")
        ids = tables.from_bytes(arrays["ids"])
        whole = Index(ids, *(arrays[name] for name in _ARRAYS))
        documents, items = arrays["documents"].tolist(), arrays["items"].tolist()
        found = origins_lib.from_rows(tables.from_bytes(arrays["origins"]))
        sizes = {len(ids), sum(documents), *(len(arrays[name]) for name in _ARRAYS)}
        if len(sizes) > 1 or not len(found) == len(documents) == len(items) or min(documents, default=0) < 0:
            raise ValueError("its arrays do not belong together")
        if (whole.numbers < 0).any() or (whole.numbers >= np.repeat(items, documents)).any():
            raise ValueError("it has documents in no line")
        other = about["config_hash"] != digest
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{file} is damaged ({error}): delete it, and everything is read again") from error
    if other:
        raise ConfigError(f"{folder} was started with another config: use that, or name another --output")
    ends = np.cumsum(documents).tolist()
    parts = [whole.part(end - count, end) for end, count in zip(ends, documents)]
    return [Read(*read) for read in zip(found, items, parts)]
