"""The same verdicts by Apache Beam, on any runner: for more documents than one machine holds.

Documents that share a key become edges to the group's first document; alternating large-star and small-star steps
(Kiveris et al. 2014, Connected Components in MapReduce and Beyond) turn these into stars, each a cluster. A Beam graph
has no loops, so the number of rounds is fixed; whether they were enough is checked, and too few are an error, never a
wrong verdict.
"""

import json
import os
import pathlib
import shutil
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from kanana_jax.data.dedup import clusters, local, verdicts
from kanana_jax.data.read import records
from kanana_jax.data.read.record import Record
from kanana_jax.errors import UserError
from kanana_jax.files import write_json

_LINES = 40  # bits of a document's place for its line; the rest is its file


def run(
    config: local.DedupConfig,
    inputs: Sequence[str],
    output: pathlib.Path,
    options: Sequence[str] = (),
    rounds: int = 6,
) -> dict[str, Any]:
    """Judges all documents; writes what `local.run` writes but for the index.

    Args:
      options: of Beam (`--runner=DataflowRunner` …), default the Direct runner; files must be visible to all workers.
      rounds: of both steps; each shortens chains by more than half.

    Raises:
      UserError: `output` is not empty, no documents, or too few rounds.
    """
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions

    if output.exists() and any(output.iterdir()):
        raise UserError(f"{output} is not empty: name another --output")
    files = [str(file) for path in inputs for file in (records.files_of(path) if "://" not in path else [path])]
    parts = output / "parts"
    parts.mkdir(parents=True)
    with beam.Pipeline(options=PipelineOptions(list(options))) as pipeline:
        found = (
            pipeline
            | beam.Create(list(enumerate(files)))
            | beam.Reshuffle()
            | "read" >> beam.FlatMap(_documents, config)
        )
        edges = found | "keys" >> beam.FlatMap(_keys) | "meet" >> beam.GroupByKey() | "edges" >> beam.FlatMap(_star)
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
        info = found | "info" >> beam.Map(lambda document: (document["place"], document))
        members = (
            {"info": info, "roots": edges, "leaves": edges | beam.Map(lambda edge: (edge[1], None))}
            | beam.CoGroupByKey()
            | "member" >> beam.FlatMap(_member)
        )
        _ = (
            members
            | "clusters" >> beam.GroupByKey()
            | "judge" >> beam.FlatMap(_judge, config)
            | "lines" >> beam.Map(json.dumps, ensure_ascii=False)
            | beam.io.WriteToText(str(parts / "duplicates"))
        )
        _ = (
            found
            | "one" >> beam.Map(lambda _: 1)
            | beam.CombineGlobally(sum)
            | "number" >> beam.io.WriteToText(str(parts / "documents"), num_shards=1)
        )
    return _finish(parts, output, config)


def _documents(file: tuple[int, str], config: local.DedupConfig) -> Iterator[dict[str, Any]]:
    """A file's documents with their keys, and without their text."""
    number, path = file
    batch: list[Record] = []
    line = 0

    def work() -> Iterator[dict[str, Any]]:
        found = local.index(iter(batch), config)
        for i, record in enumerate(batch):
            yield {
                "place": (number << _LINES) + line - len(batch) + i,
                "id": record["id"],
                "text": found.texts[i].tobytes().hex(),
                "bands": found.bands[i].tobytes() if found.bands[i].any() else b"",
                "length": int(found.lengths[i]),
                "quality": None if np.isnan(found.quality[i]) else float(found.quality[i]),
            }

    for record in records.read(path, source=""):
        if isinstance(record, dict):
            batch.append(record)
            line += 1
        if len(batch) == local.BATCH:
            yield from work()
            batch.clear()
    yield from work()


def _keys(document: dict[str, Any]) -> Iterator[tuple[bytes, int]]:
    yield b"t" + bytes.fromhex(document["text"]), document["place"]
    bands = document["bands"]
    for i in range(0, len(bands), 8):
        yield b"b" + i.to_bytes(4, "big") + bands[i : i + 8], document["place"]


def _star(group: tuple[bytes, Iterable[int]]) -> Iterator[tuple[int, int]]:
    places = group[1]
    first = min(places)
    yield from ((place, first) for place in places if place != first)


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
        raise UserError("clusters were not joined in so many rounds: raise rounds")
    if roots or is_root:
        yield (roots.pop() if roots else place), next(iter(found["info"]))


def _judge(cluster: tuple[int, Iterable[dict[str, Any]]], config: local.DedupConfig) -> Iterator[dict[str, Any]]:
    """`clusters.verdicts` of one cluster, as lines."""
    members = sorted(cluster[1], key=lambda document: document["place"])
    _, texts = np.unique([m["text"] for m in members], return_inverse=True)
    kinds, kept = clusters.verdicts(
        np.zeros(len(members), np.int64),
        texts,
        np.array([m["length"] for m in members]),
        np.array([-np.inf if m["quality"] is None else m["quality"] for m in members]),
        config.keep,
    )
    for i in np.flatnonzero(kinds):
        line = {"id": members[i]["id"], "verdict": verdicts.NAMES[int(kinds[i])], "kept": members[kept[i]]["id"]}
        yield {**line, "place": members[i]["place"]}


def _finish(parts: pathlib.Path, output: pathlib.Path, config: local.DedupConfig) -> dict[str, Any]:
    documents = sum(int(line) for file in parts.glob("documents-*") for line in file.open(encoding="utf-8"))
    if not documents:
        raise UserError("no documents in the inputs")
    lines = [json.loads(line) for file in sorted(parts.glob("duplicates-*")) for line in file.open(encoding="utf-8")]
    lines.sort(key=lambda line: line.pop("place"))
    kind_of = {name: kind for kind, name in verdicts.NAMES.items()}
    kinds = np.array([kind_of[line["verdict"]] for line in lines], np.uint8)
    verdicts.write(output, [line["id"] for line in lines], kinds)
    with (output / "duplicates.jsonl.partial").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    os.replace(output / "duplicates.jsonl.partial", output / "duplicates.jsonl")
    sizes = np.unique([line["kept"] for line in lines], return_counts=True)[1] + 1 if lines else np.zeros(0, np.int64)
    report = local.make_report(documents, kinds, sizes, config)
    write_json(output / "report.json", report)
    shutil.rmtree(parts)
    return report
