"""Any seqio task as our documents; imported only if a config names one, since seqio imports TensorFlow.

    seqio://my_task?module=my_package.tasks&split=train        as a source's path

A task is read offline into ArrayRecord shards, by Apache Beam at scale (`cache`) or by `sources.prepare` as any other
source, and Grain trains from those.
"""

import importlib
import json
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import parse_qsl, urlsplit

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import seqio  # noqa: E402

from kanana_jax.errors import UserError, nearest  # noqa: E402
from kanana_jax.files import load_json, write_json  # noqa: E402


def read(uri: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The documents of `seqio://task?module=a.b&split=train`, for `records.read`.

    A document's text is the task's text features before tokenization (`*_pretokenized`), or else its tokens decoded;
    `inputs` come before `targets`, separated by a newline.

    Raises:
      UserError: no such task, module, split or parameter.
    """
    parts = urlsplit(uri)
    given = dict(parse_qsl(parts.query, keep_blank_values=True))
    unknown = given.keys() - {"module", "split"}
    if unknown:
        raise UserError(f"source '{uri}': no parameter '{min(unknown)}'; {nearest(min(unknown), ['module', 'split'])}")
    if given.get("module"):
        try:
            importlib.import_module(given["module"])
        except ImportError as error:
            raise UserError(f"source '{uri}': module {given['module']} cannot be imported ({error})") from error
    name, split = parts.netloc + parts.path, given.get("split", "train")
    known = [*seqio.TaskRegistry.names(), *seqio.MixtureRegistry.names()]
    if name not in known:
        raise UserError(f"source '{uri}': no seqio task '{name}'; {nearest(name, known)}")
    yield from ((f"{name}/{split}/{i}", record) for i, record in enumerate(_documents(name, split, None)))


def _documents(name: str, split: str, shard: seqio.ShardInfo | None) -> Iterator[dict[str, Any]]:
    task = seqio.get_mixture_or_task(name)
    if split not in task.splits:
        raise UserError(f"seqio task '{name}' has no split '{split}'; {nearest(split, list(task.splits))}")
    features = [key for key in ("inputs", "targets") if key in task.output_features] or list(task.output_features)
    dataset = task.get_dataset(None, split, shuffle=False, shard_info=shard, num_epochs=1)
    for example in dataset.as_numpy_iterator():
        texts = []
        for key in features:
            plain = example.get(f"{key}_pretokenized")
            if isinstance(plain, bytes):
                texts.append(plain.decode("utf-8", "replace"))
            else:
                texts.append(task.output_features[key].vocabulary.decode([int(i) for i in example[key]]))
        record = {"text": "\n".join(texts)}
        if isinstance(example.get("id"), bytes):
            record["id"] = example["id"].decode("utf-8", "replace")
        yield record


def cache(name: str, split: str, folder: pathlib.Path, module: str = "", options: Sequence[str] = ()) -> int:
    """Writes a task's documents as ArrayRecord shards with Apache Beam; returns how many.

    Args:
      module: registers the task; workers import it too.
      options: Beam's options (`--runner=DataflowRunner` …); default: the Direct runner.

    Raises:
      UserError: the folder already has shards.
    """
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions

    if module:
        importlib.import_module(module)
    folder = pathlib.Path(folder)
    if any(folder.glob("*.array_record")):
        raise UserError(f"{folder} already has array_record files: name an empty folder")
    folder.mkdir(parents=True, exist_ok=True)
    count = len(seqio.get_mixture_or_task(name).source.list_shards(split))
    work = [(name, split, str(folder), module, index, count) for index in range(count)]
    with beam.Pipeline(options=PipelineOptions(list(options))) as pipeline:
        shards = pipeline | beam.Create(work) | beam.Reshuffle() | beam.Map(_write_shard)
        _ = shards | beam.CombineGlobally(sum) | beam.Map(_write_total, str(folder))
    return load_json(folder / "documents.json")["documents"]


def _write_shard(work: tuple[str, str, str, str, int, int]) -> int:
    from array_record.python.array_record_module import ArrayRecordWriter

    name, split, folder, module, index, count = work
    if module:
        importlib.import_module(module)
    path = pathlib.Path(folder) / f"{split}-{index:05d}-of-{count:05d}.array_record"
    temporary = path.with_suffix(".partial")
    writer, written = ArrayRecordWriter(str(temporary), "group_size:1"), 0
    for record in _documents(name, split, seqio.ShardInfo(index, count)):
        writer.write(json.dumps(record, ensure_ascii=False).encode())
        written += 1
    writer.close()
    os.replace(temporary, path)
    return written


def _write_total(documents: int, folder: str) -> None:
    write_json(pathlib.Path(folder) / "documents.json", {"documents": documents})
