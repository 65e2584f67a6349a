"""seqio and tensorflow-text: our documents as seqio tasks and mixtures, and any seqio task as our documents.

    seqio://my_task?module=my_package.tasks&split=train        as a source's path

This is the only module that imports TensorFlow. A task is read offline into ArrayRecord shards, by Apache Beam at scale
(`cache`) or by `sources.prepare` as any other source, and Grain trains from those.
"""

import dataclasses
import importlib
import json
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl, urlsplit

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import seqio  # noqa: E402
import tensorflow as tf  # noqa: E402
import tensorflow_text  # noqa: E402

from kanana_jax.data import records  # noqa: E402
from kanana_jax.data.tokenizer import SENTENCEPIECE_FILE  # noqa: E402
from kanana_jax.errors import UserError, nearest  # noqa: E402

# Figure 2 of arXiv:2502.18934, percent of tokens.
STAGE1 = {"english_web": 67.8, "code": 12.8, "korean_web": 9.6, "academic": 8.7, "encyclopedia": 1.0}
STAGE2 = {
    "academic": 35.8,
    "code": 34.3,
    "korean_web": 20.5,
    "english_web": 5.3,
    "encyclopedia": 2.4,
    "instruction": 1.8,
}


class DocumentSource(seqio.DataSource):
    """Documents in any form that `records.read` knows; a file is a shard."""

    def __init__(self, paths: Mapping[str, str]):
        """`paths`: split → file, folder, glob or URI."""
        self._paths = dict(paths)
        super().__init__(splits=list(paths), num_input_examples=None, caching_permitted=True)

    @property
    def supports_arbitrary_sharding(self) -> bool:
        return False

    def list_shards(self, split: str) -> Sequence[str]:
        path = self._paths[split]
        return [path] if "://" in path else [str(file) for file in records.files_of(path)]

    def get_dataset(self, split="train", shuffle=True, seed=None, shard_info=None, *, sequence_length=None,
                    use_cached=False, num_epochs=1):  # fmt: skip
        shards = self.list_shards(split)
        if shard_info is not None:
            shards = shards[shard_info.index :: shard_info.num_shards]

        def examples():
            for shard in shards:
                for record in records.read(shard, source=""):
                    if isinstance(record, dict):
                        yield {"id": record["id"], "text": record["text"]}

        text = tf.TensorSpec((), tf.string)
        return tf.data.Dataset.from_generator(examples, output_signature={"id": text, "text": text})


def vocabulary(folder: pathlib.Path) -> seqio.SentencePieceVocabulary:
    """The seqio vocabulary over a tokenizer folder's SentencePiece model: the same ids as `data.tokenizer`."""
    file = pathlib.Path(folder) / SENTENCEPIECE_FILE
    if not file.is_file():
        raise UserError(f"{file} does not exist: seqio vocabularies need a SentencePiece model")
    return seqio.SentencePieceVocabulary(str(file))


def normalise(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """NFC, by tensorflow-text."""
    return dataset.map(
        lambda example: {**example, "text": tensorflow_text.normalize_utf8(example["text"], "NFC")},
        num_parallel_calls=tf.data.AUTOTUNE,
    )


def _as_targets(dataset: tf.data.Dataset) -> tf.data.Dataset:
    return dataset.map(lambda example: {"id": example["id"], "targets": example["text"]})


@dataclasses.dataclass(frozen=True)
class Corpus:
    """One source of a recipe as a seqio task: its name, and split → path."""

    name: str
    paths: Mapping[str, str]


def register(corpora: Sequence[Corpus], tokenizer: pathlib.Path, mixtures: Mapping[str, Mapping[str, float]]) -> None:
    """Adds a text task for each corpus, and mixtures of them by their rates (say, `STAGE1`).

    A task gives `targets` (token ids, EOS at the end) and `targets_pretokenized` (the normalised text).

    Raises:
      UserError: a mixture names a corpus that is not there.
    """
    features = {"targets": seqio.Feature(vocabulary(tokenizer), add_eos=True, dtype=tf.int32)}
    names = {corpus.name for corpus in corpora}
    for corpus in corpora:
        seqio.TaskRegistry.add(
            corpus.name,
            source=DocumentSource(corpus.paths),
            preprocessors=[normalise, _as_targets, seqio.preprocessors.tokenize, seqio.preprocessors.append_eos],
            output_features=features,
        )
    for name, rates in mixtures.items():
        for corpus in rates:
            if corpus not in names:
                raise UserError(f"mixture '{name}' names '{corpus}': {nearest(corpus, sorted(names))}")
        seqio.MixtureRegistry.add(name, [(corpus, float(rate)) for corpus, rate in rates.items()])


def read(uri: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The documents of `seqio://task?module=a.b&split=train`, for `records.read`.

    A document's text is the task's text features before tokenization (`*_pretokenized`), or else its tokens decoded;
    `inputs` come before `targets`, a newline between.

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
      options: of Beam (`--runner=DataflowRunner` …); default the Direct runner.

    Raises:
      UserError: the folder holds shards already.
    """
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions

    if module:
        importlib.import_module(module)
    folder = pathlib.Path(folder)
    if any(folder.glob("*.array_record")):
        raise UserError(f"{folder} holds array_record files already: name an empty folder")
    folder.mkdir(parents=True, exist_ok=True)
    count = len(seqio.get_mixture_or_task(name).source.list_shards(split))
    work = [(name, split, str(folder), module, index, count) for index in range(count)]
    with beam.Pipeline(options=PipelineOptions(list(options))) as pipeline:
        shards = pipeline | beam.Create(work) | beam.Reshuffle() | beam.Map(_write_shard)
        _ = shards | beam.CombineGlobally(sum) | beam.Map(_write_total, str(folder))
    return json.loads((folder / "documents.json").read_text())["documents"]


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
    (pathlib.Path(folder) / "documents.json").write_text(json.dumps({"documents": documents}))
