"""Our documents as seqio tasks and mixtures, with tensorflow-text.

Only this module and `seqio_source` import TensorFlow. A task is read offline into ArrayRecord shards, by Apache Beam at
scale (`seqio_source.cache`) or by `sources.prepare` as any other source, and Grain trains from those.
"""

import dataclasses
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import seqio  # noqa: E402
import tensorflow as tf  # noqa: E402
import tensorflow_text  # noqa: E402

from kanana_jax.data.read import records  # noqa: E402
from kanana_jax.data.tokens.tokenizer import load_tokenizer  # noqa: E402
from kanana_jax.errors import UserError, nearest  # noqa: E402


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

    def get_dataset(
        self,
        split: str = "train",
        shuffle: bool = True,
        seed: int | None = None,
        shard_info: seqio.ShardInfo | None = None,
        *,
        sequence_length: Mapping[str, int] | None = None,
        use_cached: bool = False,
        num_epochs: int | None = 1,
    ) -> tf.data.Dataset:
        shards = self.list_shards(split)
        if shard_info is not None:
            shards = shards[shard_info.index :: shard_info.num_shards]

        def examples() -> Iterator[dict[str, str]]:
            for shard in shards:
                for record in records.read(shard, source=""):
                    if isinstance(record, dict):
                        yield {"id": record["id"], "text": record["text"]}

        text = tf.TensorSpec((), tf.string)
        return tf.data.Dataset.from_generator(examples, output_signature={"id": text, "text": text})


class TokenizerVocabulary(seqio.Vocabulary):
    """A tokenizer of ours as a seqio vocabulary: the ids of `data/tokens/tokenizer.py`.

    Inside a `tf.data` graph it calls Python, so such a graph cannot be saved or sent elsewhere.
    """

    def __init__(self, folder: pathlib.Path):
        self._folder, self._tokenizer = pathlib.Path(folder), load_tokenizer(folder)
        super().__init__()

    def __reduce__(self):
        return TokenizerVocabulary, (self._folder,)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TokenizerVocabulary) and other._tokenizer.fingerprint == self._tokenizer.fingerprint

    def __hash__(self) -> int:
        return hash(self._tokenizer.fingerprint)

    @property
    def bos_id(self) -> int | None:
        return self._tokenizer.bos_id

    @property
    def eos_id(self) -> int:
        return self._tokenizer.eos_id

    @property
    def unk_id(self) -> int | None:
        return None  # every text has ids

    @property
    def _base_vocab_size(self) -> int:
        return self._tokenizer.vocab_size

    def _encode(self, s: str) -> list[int]:
        return self._tokenizer.encode(s).tolist()

    def _decode(self, ids: Sequence[int]) -> str:
        return self._tokenizer.decode(ids)

    def _encode_tf(self, s: tf.Tensor) -> tf.Tensor:
        ids = tf.py_function(lambda text: self._tokenizer.encode(text.numpy().decode()), [s], tf.int32)
        return tf.ensure_shape(ids, [None])

    def _decode_tf(self, ids: tf.Tensor) -> tf.Tensor:
        text = tf.py_function(lambda found: self._tokenizer.decode(found.numpy()), [ids], tf.string)
        return tf.ensure_shape(text, [])


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
    """One source of a recipe for a seqio task: its name, and split → path."""

    name: str
    paths: Mapping[str, str]


def register(corpora: Sequence[Corpus], tokenizer: pathlib.Path, mixtures: Mapping[str, Mapping[str, float]]) -> None:
    """Adds a text task for each corpus, and mixtures of them by their rates (such as `kanana_mixtures.STAGE1`).

    A task gives `targets` (token ids, EOS at the end) and `targets_pretokenized` (the normalised text).

    Raises:
      UserError: a mixture names a missing corpus.
    """
    features = {"targets": seqio.Feature(TokenizerVocabulary(tokenizer), add_eos=True, dtype=tf.int32)}
    names = {corpus.name for corpus in corpora}
    for corpus in corpora:
        seqio.TaskRegistry.add(
            corpus.name,
            source=DocumentSource(corpus.paths),  # ty: ignore[invalid-argument-type]  seqio's stubs refuse its own DataSource
            preprocessors=[normalise, _as_targets, seqio.preprocessors.tokenize, seqio.preprocessors.append_eos],
            output_features=features,
        )
    for name, rates in mixtures.items():
        for corpus in rates:
            if corpus not in names:
                raise UserError(f"mixture '{name}' names '{corpus}': {nearest(corpus, sorted(names))}")
        seqio.MixtureRegistry.add(name, [(corpus, float(rate)) for corpus, rate in rates.items()])
