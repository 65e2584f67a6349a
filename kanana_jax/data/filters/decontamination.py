"""Overlap of training documents with evaluation sets: n-grams of the sets, frozen as hashes, looked up in documents.

An n-gram is 13 words without case, punctuation and white space, as in GPT-3 (Brown et al., arXiv:2005.14165, App. C)
and lm-evaluation-harness; for other scripts see `ngrams`. Peers: datatrove takes 12 words, Llama 3 tokens in common
8-grams (arXiv:2407.21783, §5.1.4), Qwen2.5 common subsequences of 13 tokens (arXiv:2412.15115), GPT-4 50 letters and
digits (arXiv:2303.08774, App. C), DCLM the end of a question next to one of its choices (arXiv:2406.11794). None of
these finds a translated or reworded text.

n-grams shared by many items of a set are its template (an instruction, a list of choices), and innocent documents
would be dropped for them. GPT-3 and NeMo Curator leave out n-grams that match more than 10 training documents; here no
corpus is available, so those in more than 10 different items of one set are dropped.

With 64-bit hashes, 10^12 units of text collide with 10^6 n-grams about once in 20 corpora.
"""

import dataclasses
import gzip
import hashlib
import itertools
import pathlib
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from kanana_jax import config as configs
from kanana_jax.data.arrays import characters, tables
from kanana_jax.data.arrays.documents import Documents, batches, join
from kanana_jax.data.filters.ngrams import Lengths, Units
from kanana_jax.data.read import jsonl
from kanana_jax.errors import ConfigError, UserError
from kanana_jax.files import local_copy, write_json

FILE, _ABOUT = "contamination.safetensors", "contamination.json"
_HASHES, _SETS, _HEADS = "hashes", "sets", "heads"
_ARRAYS = {_HASHES: ("U64", 1), _SETS: ("U16", 1), _HEADS: ("U8", 1)}
_FORMAT = 2
# A Bloom filter (Bloom 1970) of the n-grams' heads: with 3 probes and at least 16 bits per head, about one position in
# 200 of innocent text is looked up in vain.
_BITS_PER_HEAD, _PROBES = 16, 3
_SHORTEST_FIELD = 20  # characters of a field that is used by default; ids and labels have fewer


@dataclasses.dataclass(frozen=True)
class ContaminationConfig:
    """Settings for the stored n-grams of evaluation sets.

    Attributes:
      ngrams: their lengths. A shorter item counts as one n-gram down to 8 words (GPT-3's smallest n) or an equivalent
        in other scripts; still shorter ones are not looked for, since they say too little.
      max_items: n-grams in more items of one set than this belong to its template and are left out.
    """

    ngrams: Lengths = Lengths()
    max_items: int = 10

    def __post_init__(self):
        if self.max_items < 1:
            raise ValueError("max_items must be at least 1")


@dataclasses.dataclass(frozen=True)
class Overlap:
    """The part of a document that also occurs in an evaluation set.

    Attributes:
      ngrams: number of positions of the document at which an n-gram of the set begins.
      share: share of the document's units (words, eojeol, characters) covered by n-grams of the set.
      span: the first stretch covered, start and end in the normalised text.
    """

    set: str
    ngrams: int
    share: float
    span: tuple[int, int]


def _ngrams(found: Units, lengths: Lengths) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Item, hash and head hash (the shortest n-grams carry no more) of each n-gram of some items."""
    starts = np.arange(len(found.stop))
    ends = found.ends(starts, lengths.whole)
    inside = ends <= found.stop
    first, last = found.documents[:-1], found.documents[1:]
    carried = found.weight.take(last) - found.weight.take(first)
    short = (carried >= lengths.shortest) & (carried < lengths.whole)
    starts = np.concatenate([starts.compress(inside), first.compress(short)])
    ends = np.concatenate([ends.compress(inside), last.compress(short)])
    of = np.searchsorted(last, starts, side="right")
    return of, found.of(starts, ends), found.of(starts, found.ends(starts, lengths.shortest))


def _of_set(texts: Iterable[str], config: ContaminationConfig) -> tuple[dict[str, int], np.ndarray, np.ndarray]:
    """The report on a set; its distinct n-grams without the template, and their heads."""
    seen: set[int] = set()
    count = {"items": 0, "repeated_items": 0, "too_short": 0}
    nothing = np.zeros(0, np.uint64)
    hashes, heads = [nothing], [nothing]
    texts = iter(texts)
    while some := list(itertools.islice(texts, 1024)):
        for batch in batches([characters.normalise(text) for text in some]):
            found = Units(join(batch), config.ngrams)
            first, last = found.documents[:-1], found.documents[1:]
            new = np.zeros(len(batch), bool)
            for i, item in enumerate(found.of(first, last).tolist()):
                new[i] = item not in seen
                seen.add(item)
            long = found.weight.take(last) - found.weight.take(first) >= config.ngrams.shortest
            count["items"] += len(batch)
            count["repeated_items"] += int(np.count_nonzero(~new & long))
            count["too_short"] += int(np.count_nonzero(~long))
            of, grams, starts = _ngrams(found, config.ngrams)
            # Each n-gram once per item, and each item once per set: a passage has many questions.
            order = np.lexsort((grams, of))
            order = order.compress(new.take(of.take(order)))
            other = np.append(True, (np.diff(of.take(order)) != 0) | (np.diff(grams.take(order)) != 0))[: len(order)]
            hashes.append(grams.take(order.compress(other)))
            heads.append(starts.take(order.compress(other)))
    different, first, often = np.unique(np.concatenate(hashes), return_index=True, return_counts=True)
    kept = often <= config.max_items
    count |= {"ngrams": int(np.count_nonzero(kept)), "template_ngrams": int(np.count_nonzero(~kept))}
    return count, different.compress(kept), np.concatenate(heads).take(first.compress(kept))


def build(sets: Mapping[str, Iterable[str]], config: ContaminationConfig, output: str | pathlib.Path) -> dict[str, Any]:
    """Writes the n-grams of evaluation sets into a folder, each file atomically; the same sets give the same bytes.

    Args:
      sets: name → texts of its items, see `items`.

    Returns:
      `contamination.json`: the config; `sets` with, for each, `items` (texts), of which `repeated_items` and
      `too_short`, the distinct `ngrams`, and `template_ngrams` left out; a `digest` of all n-grams.

    Raises:
      UserError: no set has an n-gram, or the disk is full.
    """
    output = pathlib.Path(output)
    names = sorted(sets)
    found = [_of_set(sets[name], config) for name in names]
    hashes = np.concatenate([grams for _, grams, _ in found] or [np.zeros(0, np.uint64)])
    if not len(hashes):
        raise UserError(
            "no item of an evaluation set is long enough to be searched for (8 words, or the equivalent in other "
            "scripts): name other fields or sets, or filter without them"
        )
    numbers = np.repeat(np.arange(len(names), dtype=np.uint16), [len(grams) for _, grams, _ in found])
    order = np.lexsort((numbers, hashes))
    arrays = {
        _HASHES: hashes.take(order),
        _SETS: numbers.take(order),
        _HEADS: _filter(np.unique(np.concatenate([heads for _, _, heads in found]))),
    }
    digest = hashlib.blake2b(b"".join(array.tobytes() for array in arrays.values()), digest_size=8).hexdigest()
    report = {
        "format": _FORMAT,
        "config": dataclasses.asdict(config),
        "digest": digest,
        "sets": {name: count for name, (count, _, _) in zip(names, found)},
    }
    tables.write(output / FILE, report, arrays)
    write_json(output / _ABOUT, report)
    return report


def _filter(heads: np.ndarray) -> np.ndarray:
    """A Bloom filter as bytes, which recognises nearly all innocent text."""
    bits = max(10, (len(heads) * _BITS_PER_HEAD - 1).bit_length())
    flags = np.zeros(1 << bits, bool)
    for probe in range(_PROBES):
        flags[_probe(heads, probe, bits)] = True
    return np.packbits(flags, bitorder="little")


def _probe(heads: np.ndarray, probe: int, bits: int) -> np.ndarray:
    """The positions in a Bloom filter of `2 ** bits` bits."""
    return ((heads << np.uint64(20 * probe)) >> np.uint64(64 - bits)).view(np.int64)


def opened(folder: str) -> "Contamination":
    """The n-grams of a folder, read once per process until they are replaced."""
    return tables.opened(Contamination, folder, FILE)


class Contamination:
    """Looks documents up in a folder of `build`; picklable, memory-mapped."""

    def __init__(self, folder: str | pathlib.Path):
        self._folder = pathlib.Path(folder)
        try:
            self.report, arrays = tables.read(self._folder / FILE, _ARRAYS)
            if self.report["format"] != _FORMAT:
                raise ValueError(f"its format {self.report['format']} is not {_FORMAT}")
            self.config = configs.build(ContaminationConfig, self.report["config"], _ABOUT)
            self.sets = tuple(sorted(self.report["sets"]))
            self._hashes, self._numbers, self._heads = (arrays[name] for name in (_HASHES, _SETS, _HEADS))
            count = sum(about["ngrams"] for about in self.report["sets"].values())
            if not len(self._hashes) == len(self._numbers) == count:
                raise ValueError("the lengths of its arrays differ from those in its header")
            if len(self._heads) < 2 or len(self._heads) & (len(self._heads) - 1):
                raise ValueError("its filter has an impossible size")
            if self._numbers.max(initial=0) >= len(self.sets):
                raise ValueError("it has n-grams without a set")
        except (OSError, ValueError, KeyError, TypeError, AttributeError, ConfigError) as error:
            raise UserError(
                f"{self._folder / FILE} holds no n-grams of evaluation sets ({error}): "
                f"run `kanana contamination --output {folder}` again"
            ) from error
        self._bits = (8 * len(self._heads)).bit_length() - 1

    def __reduce__(self):
        return Contamination, (self._folder,)

    def judge(self, texts: Sequence[str]) -> list[tuple[Overlap, ...]]:
        """The overlaps of each normalised text with the sets; empty for most."""
        return [result for batch in batches(texts) for result in self._judge(join(batch))]

    def _judge(self, texts: Documents) -> list[tuple[Overlap, ...]]:
        found = Units(texts, self.config.ngrams)
        starts = np.arange(len(found.stop))
        ends = found.ends(starts, self.config.ngrams.shortest)
        inside = ends <= found.stop
        starts, ends = starts.compress(inside), ends.compress(inside)
        heads = found.of(starts, ends)
        for probe in range(_PROBES):
            place = _probe(heads, probe, self._bits)
            there = self._heads.take(place >> 3) >> (place & 7).astype(np.uint8) & 1
            heads, starts, ends = (array.compress(there) for array in (heads, starts, ends))
        starts, ends, numbers = self._hits(found, starts, ends)
        results: list[list[Overlap]] = [[] for _ in texts.texts]
        documents = np.searchsorted(found.documents[1:], starts, side="right")
        for document, number in sorted(set(zip(documents.tolist(), numbers.tolist()))):
            own = (documents == document) & (numbers == number)
            begin, stretches = _stretches(starts[own], ends[own])
            size = found.documents[document + 1] - found.documents[document]
            edges = found.places.take(found.bounds.take(stretches[0]) - [0, 1]) - texts.starts[document] + [0, 1]
            share = float(np.diff(stretches).sum() / size)
            results[document].append(Overlap(self.sets[number], begin, share, tuple(edges.tolist())))
        return [tuple(result) for result in results]

    def _hits(self, found: Units, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """Start, end and set of each n-gram that begins at one of `starts`; int64 `[3, hits]`."""
        stop = np.minimum(found.ends(starts, self.config.ngrams.whole), found.stop.take(starts))
        hits = [np.zeros((3, 0), np.int64)]
        while len(starts):
            wanted = found.of(starts, ends)
            first = np.searchsorted(self._hashes, wanted)
            often = np.searchsorted(self._hashes, wanted, side="right") - first
            there = often.repeat(often)
            at = first.repeat(often) + np.arange(len(there)) - (often.cumsum() - often).repeat(often)
            hits.append(np.stack([starts.repeat(often), ends.repeat(often), self._numbers[at]]))
            ends = ends + 1  # items shorter than an n-gram end somewhere in between
            more = ends <= stop
            starts, ends, stop = (array.compress(more) for array in (starts, ends, stop))
        return np.concatenate(hits, axis=1)


def _stretches(starts: np.ndarray, ends: np.ndarray) -> tuple[int, np.ndarray]:
    """Number of distinct starts; the stretches that n-grams cover together, `[stretches, 2]`, in order."""
    order = np.lexsort((ends, starts))
    starts, ends = starts.take(order), np.maximum.accumulate(ends.take(order))
    apart = starts[1:] > ends[:-1]
    first, last = starts[np.append(True, apart)], ends[np.append(apart, True)]
    return len(np.unique(starts)), np.stack([first, last], axis=1)


def items(path: str | pathlib.Path, fields: Sequence[str] = ()) -> Iterator[str]:
    """The texts of an evaluation file, row by row and field by field.

    Args:
      path: `.jsonl` or `.jsonl.gz`.
      fields: fields to use; lists of texts are joined. Without any, all fields of at least 20 characters.

    Raises:
      UserError: a line is not JSON or lacks a field; names file and line.
    """
    path = local_copy(path)
    if not path.name.endswith((".jsonl", ".jsonl.gz")):
        raise UserError(f"{path}: evaluation sets are read from .jsonl and .jsonl.gz files only: convert it")
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            for number, line in enumerate(jsonl.lines(stream), 1):
                if line is None:
                    raise UserError(f"{path}:{number} has more than {jsonl.MAX_LINE} bytes: remove the line")
                if line.strip():
                    yield from _texts(line, fields, f"{path}:{number}")
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}): name an intact .jsonl or .jsonl.gz file") from error


def _texts(line: bytes, fields: Sequence[str], where: str) -> Iterator[str]:
    try:
        row = jsonl.parse(line)
    except ValueError as error:
        raise UserError(f"{where} is not JSON in UTF-8 ({str(error)[:80]}): correct or remove the line") from error
    if not isinstance(row, dict):
        raise UserError(f"{where} is not a JSON object: an item is a row of fields")
    for field in fields or row:
        value = row.get(field)
        if isinstance(value, list) and value and all(isinstance(part, str) for part in value):
            value = "\n".join(value)
        if isinstance(value, str):
            if fields or len(value) >= _SHORTEST_FIELD:
                yield value
        elif fields:
            there = ", ".join(key for key in row if isinstance(row[key], (str, list)))
            raise UserError(f"{where}: field '{field}' is not a text or list of texts; the row has {there or 'none'}")
