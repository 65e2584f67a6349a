"""Deduplication with Apache Beam, on any runner: the verdicts of `local`, for more documents than one machine holds.

The verdict on a document depends on the documents that it resembles, and so on its whole connected component. Pairs of
equal texts, and pairs within a band whose sketches are similar, become edges. Alternating large-star and small-star
steps (Kiveris et al. 2014, Connected Components in MapReduce and Beyond) turn components into stars, and each star is
judged as a whole by the code of the local path. A Beam graph has no loops, so the number of rounds is fixed. If it was
too small, the run fails; verdicts are never wrong.
"""

import base64
import json
import pathlib
import shutil
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from kanana_jax.data.dedup import clusters, index, local, verdicts
from kanana_jax.data.dedup.index import DedupConfig
from kanana_jax.data.read import origins as origins_lib
from kanana_jax.data.read import outputs, records
from kanana_jax.data.read.origins import Origin
from kanana_jax.data.read.record import Record
from kanana_jax.errors import UserError
from kanana_jax.files import LOCK

_COMPARED = 1024  # larger bands are treated as connected instead of being compared pair by pair
_LINES = 40  # bits of a document's place that hold its number; the higher bits hold its origin
_ABOUT, _BANDS = "origins", "bands"


def run(
    config: DedupConfig,
    inputs: Sequence[str],
    output: pathlib.Path,
    options: Sequence[str] = (),
    rounds: int = 6,
) -> dict[str, Any]:
    """Judges all documents; writes what `local.run` writes except the index.

    Args:
      options: Beam's options (`--runner=DataflowRunner` …); default: the Direct runner. All workers must see the files.
      rounds: number of rounds of both steps; each shortens chains to less than half.

    Raises:
      ConfigError: `output` lies in an input.
      UserError: `output` is not empty, there are no documents, or there were too few rounds.
    """
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions

    outputs.apart(output, inputs)
    if output.exists() and any(file.name != LOCK for file in output.iterdir()):
        raise UserError(f"{output} is not empty: name another --output")
    origins = origins_lib.identify(records.find_all(inputs))
    parts = output / "parts"
    parts.mkdir(parents=True)
    with beam.Pipeline(options=PipelineOptions(list(options))) as pipeline:
        read = (
            pipeline
            | beam.Create(list(enumerate(origins)))
            | beam.Reshuffle()
            | "read" >> beam.FlatMap(_documents, config).with_outputs(_ABOUT, main="documents")
        )
        found = read.documents
        info = found | "info" >> beam.Map(lambda document: (document["place"], document))
        met = (
            found
            | "keys" >> beam.FlatMap(_keys)
            | "meet" >> beam.GroupByKey()
            | beam.FlatMap(_meeting).with_outputs(_BANDS, main="texts")
        )
        alike = (
            {"info": info, "bands": met[_BANDS]}
            | "sketches" >> beam.CoGroupByKey()
            | beam.FlatMap(_sketches)
            | "bands" >> beam.GroupByKey()
            | "alike" >> beam.FlatMap(_alike, config.threshold)
        )
        edges = (met.texts, alike) | "edges" >> beam.Flatten()
        for step in range(rounds):
            edges = (
                edges
                | f"both ways {step}" >> beam.FlatMap(lambda edge: (edge, edge[::-1]))
                | f"neighbours {step}" >> beam.GroupByKey()
                | f"large star {step}" >> beam.FlatMap(_large_star)
                | f"down {step}" >> beam.Map(lambda edge: (max(edge), min(edge)))
                | f"lower neighbours {step}" >> beam.GroupByKey()
                | f"small star {step}" >> beam.FlatMap(_small_star)
                | f"once {step}" >> beam.Distinct()
            )
        members = (
            {"info": info, "roots": edges, "leaves": edges | beam.Map(lambda edge: (edge[1], None))}
            | beam.CoGroupByKey()
            | "member" >> beam.FlatMap(_member)
        )
        _ = (
            members
            | "clusters" >> beam.GroupByKey()
            | "judge" >> beam.FlatMap(_judge, config)
            | "lines" >> beam.Map(json.dumps)
            | beam.io.WriteToText(str(parts / "duplicates"))
        )
        _ = read[_ABOUT] | "about" >> beam.Map(json.dumps) | "origins" >> beam.io.WriteToText(str(parts / _ABOUT))
    return _finish(parts, output, config, origins)


def _documents(item: tuple[int, Origin], config: DedupConfig) -> Iterator[Any]:
    """Yields an origin's documents as keys without their text, then a tagged summary of the whole origin."""
    from apache_beam.pvalue import TaggedOutput

    origin_number, origin = item
    batch: list[Record] = []
    items, numbers, checks = 0, [], []

    def work() -> Iterator[dict[str, Any]]:
        found = index.index(iter(batch), config)
        numbers.append(found.numbers)
        checks.append(found.checks)
        for i, record in enumerate(batch):
            yield {
                "place": (origin_number << _LINES) + int(found.numbers[i]),
                "id": record["id"],
                "text": found.texts[i].tobytes().hex(),
                "bands": found.bands[i].tobytes() if found.bands[i].any() else b"",
                "sketch": found.sketches[i].tobytes(),
                "length": int(found.lengths[i]),
                "quality": None if np.isnan(found.quality[i]) else float(found.quality[i]),
            }

    for record in records.documents_of(origin, source=""):
        items += 1
        if isinstance(record, dict):
            batch.append(record)
        if len(batch) == index.BATCH:
            yield from work()
            batch.clear()
    yield from work()
    arrays = [base64.b64encode(np.concatenate(parts).tobytes()).decode() for parts in (numbers, checks)]
    yield TaggedOutput(_ABOUT, (origin_number, items, *arrays))


def _keys(document: dict[str, Any]) -> Iterator[tuple[bytes, int]]:
    yield b"t" + bytes.fromhex(document["text"]), document["place"]
    bands = document["bands"]
    for i in range(0, len(bands), 8):
        yield b"b" + i.to_bytes(4, "big") + bands[i : i + 8], document["place"]


def _meeting(group: tuple[bytes, Iterable[int]]) -> Iterator[Any]:
    """Yields edges between equal texts, and tagged (place, band) pairs of bands that several documents share."""
    from apache_beam.pvalue import TaggedOutput

    key, places = group[0], sorted(group[1])
    if key[:1] == b"t":
        yield from ((place, places[0]) for place in places[1:])
    elif len(places) > 1:
        yield from (TaggedOutput(_BANDS, (place, key)) for place in places)


def _sketches(item: tuple[int, dict[str, Any]]) -> Iterator[tuple[bytes, tuple[int, bytes]]]:
    place, found = item
    for document in found["info"]:
        yield from ((key, (place, document["sketch"])) for key in found["bands"])


def _alike(group: tuple[bytes, Iterable[tuple[int, bytes]]], threshold: float) -> Iterator[tuple[int, int]]:
    """Yields edges that connect the documents of a band as their similarities do."""
    members = sorted(group[1])
    if len(members) > _COMPARED:
        firsts = np.zeros(len(members), np.int64)
    else:
        firsts = clusters.stars(np.stack([np.frombuffer(sketch, np.uint8) for _, sketch in members]), threshold)
    for (place, _), first in zip(members, firsts.tolist()):
        if place != members[first][0]:
            yield place, members[first][0]


def _large_star(group: tuple[int, Iterable[int]]) -> Iterator[tuple[int, int]]:
    node, others = group
    least = min(node, min(others))
    yield from ((other, least) for other in others if other > node)


def _small_star(group: tuple[int, Iterable[int]]) -> Iterator[tuple[int, int]]:
    node, lower = group
    least = min(lower)
    yield from ((other, least) for other in (*lower, node) if other != least)


def _member(item: tuple[int, dict[str, Any]]) -> Iterator[tuple[int, dict[str, Any]]]:
    place, found = item
    roots, is_root = set(found["roots"]), any(True for _ in found["leaves"])
    if len(roots) > 1 or (roots and is_root):
        raise UserError("clusters were not joined within the given number of rounds: raise rounds")
    if roots or is_root:
        yield (roots.pop() if roots else place), next(iter(found["info"]))


def _judge(cluster: tuple[int, Iterable[dict[str, Any]]], config: DedupConfig) -> Iterator[dict[str, Any]]:
    """Yields the lines of `clusters.verdicts` for one connected component."""
    members = sorted(cluster[1], key=lambda document: document["place"])
    _, texts = np.unique([m["text"] for m in members], return_inverse=True)
    nothing = bytes(8 * config.hashing.bands)
    documents = clusters.Documents(
        texts,
        np.stack([np.frombuffer(m["bands"] or nothing, np.uint64) for m in members]),
        np.stack([np.frombuffer(m["sketch"], np.uint8) for m in members]),
        np.array([m["length"] for m in members]),
        np.array([-np.inf if m["quality"] is None else m["quality"] for m in members]),
    )
    kinds, kept = clusters.verdicts(documents, config.keep, config.threshold)
    for i in np.flatnonzero(kinds):
        yield {
            "ids": (members[i]["id"], members[kept[i]]["id"]),
            "places": (members[i]["place"], members[kept[i]]["place"]),
            "kind": int(kinds[i]),
        }


def _finish(
    parts: pathlib.Path, output: pathlib.Path, config: DedupConfig, origins: Sequence[Origin]
) -> dict[str, Any]:
    about = sorted(json.loads(line) for file in parts.glob(f"{_ABOUT}-*") for line in file.open(encoding="utf-8"))
    numbers, checks = (
        [np.frombuffer(base64.b64decode(row[column]), kind) for row in about]
        for column, kind in ((2, np.int64), (3, np.uint32))
    )
    documents = np.array([len(own) for own in numbers], np.int64)
    if not documents.sum():
        raise UserError("no documents in the inputs")
    judged = verdicts.Judged(
        origins,
        np.array([row[1] for row in about], np.int64),
        documents,
        np.concatenate(numbers),
        np.concatenate(checks),
    )
    places = np.repeat(np.arange(len(origins), dtype=np.int64) << _LINES, documents) + judged.numbers
    lines = [json.loads(line) for file in sorted(parts.glob("duplicates-*")) for line in file.open(encoding="utf-8")]
    lines.sort(key=lambda line: line["places"][0])
    own, kept = np.searchsorted(places, np.array([line["places"] for line in lines], np.int64).reshape(-1, 2)).T
    kinds = np.zeros(len(places), np.uint8)
    kinds[own] = [line["kind"] for line in lines]
    rows = (judged.line(i, k, line["ids"], line["kind"]) for line, i, k in zip(lines, own.tolist(), kept.tolist()))
    sizes = np.bincount(kept)
    report = local.make_report(len(places), kinds[own], sizes[sizes > 0] + 1, config)
    local.write_results(output, judged, kinds, rows, report)
    shutil.rmtree(parts)
    return report
