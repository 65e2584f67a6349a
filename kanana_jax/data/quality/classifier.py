"""A fastText classifier (Joulin et al. 2016, arXiv:1607.01759) and the preparation of its input.

Training is deterministic given documents, config and library version: one thread, and an order that the seed defines.
"""

import dataclasses
import hashlib
import math
import pathlib
import tempfile
from collections.abc import Sequence

import numpy as np

from kanana_jax.data.arrays import characters, units
from kanana_jax.data.quality import fasttext_file
from kanana_jax.data.quality.quality_model import LABEL, QualityModel, Text
from kanana_jax.errors import ConfigError, UserError, install
from kanana_jax.files import local_copy, whole_file

OTHER = f"{LABEL}other"


@dataclasses.dataclass(frozen=True)
class ClassifierConfig:
    """Training options of a classifier.

    Attributes:
      text: preparation of the input: `word` (lower case, punctuation separated from words), `character` (every
        character is a word, for Japanese) or `raw` (only line breaks are changed, for published models).
      word_ngrams: longest n-gram of words; 2 as in DCLM (arXiv:2406.11794, §4.4).
      min_subword, max_subword: lengths of character n-grams within words, which separate Korean stems from particles.
      dim, buckets: width and rows of the n-gram table, which takes `4 * dim * buckets` bytes.
      epochs, learning_rate, min_count: as in fastText.
      max_characters: characters of a document that are read; 0 reads all.
      seed: seed of the order of documents.
    """

    text: Text = "word"
    word_ngrams: int = 2
    min_subword: int = 0
    max_subword: int = 0
    dim: int = 32
    buckets: int = 200_000
    epochs: int = 10
    learning_rate: float = 0.3
    min_count: int = 2
    max_characters: int = 4000
    seed: int = 0

    def __post_init__(self):
        if min(self.word_ngrams, self.dim, self.buckets, self.epochs, self.min_count) < 1 or self.learning_rate <= 0:
            raise ValueError("word_ngrams, dim, buckets, epochs, min_count must be at least 1, learning_rate positive")
        if not 0 <= self.min_subword <= self.max_subword:
            raise ValueError("0 <= min_subword <= max_subword must hold")


def prepare(texts: Sequence[str], text: Text, max_characters: int = 0) -> list[str]:
    """Prepares normalised texts for fastText: one line each, with single spaces between words and punctuation."""
    if max_characters:
        texts = [t[:max_characters] for t in texts]
    if text == "raw":
        return [_unmarked(" ".join(t.split("\n"))) for t in texts]
    if text == "character":
        return [" ".join("".join(t.lower().split())) for t in texts]
    return [_unmarked(_words(t.lower())) for t in texts]


def _unmarked(line: str) -> str:
    """Replaces fastText's own markers (end of line, label prefix) in a line."""
    return line.replace("</s>", "</ s>").replace(LABEL, "__ label __")


def _words(text: str) -> str:
    codes = characters.code_points(text)
    found = units.split(codes, characters.bits_of(codes), "word")
    # Units that directly follow another get a space.
    glued = found.starts[1:][found.starts[1:] == found.ends[:-1]]
    spaced = np.insert(codes, glued, 32) if len(glued) else codes
    return " ".join(spaced.tobytes().decode("utf-32-le").split())


def library():
    """Imports and returns the fastText module.

    Raises:
      UserError: it is not installed.
    """
    try:
        import fasttext
    except ImportError as error:
        raise UserError(
            f"quality models need fasttext-community (the package fasttext trains to NaN): {install('filters')}"
        ) from error
    vars(fasttext.FastText)["eprint"] = lambda *args, **kwargs: None  # it prints a warning at every load
    return fasttext


def train(texts: Sequence[str], labels: Sequence[str], config: ClassifierConfig, path: pathlib.Path) -> str:
    """Trains on normalised texts, writes the model to `path` and returns the file's sha256.

    Args:
      labels: one per text, with fastText's prefix; see `OTHER` and `quality_model.GOOD`.

    Raises:
      UserError: fewer than two labels occur, or training diverged.
    """
    if len(set(labels)) < 2:
        raise UserError(f"a classifier needs two kinds of documents, but all {len(labels)} are '{labels[:1]}'")
    fasttext = library()
    lines = prepare(texts, config.text, config.max_characters)
    order = np.random.default_rng(config.seed).permutation(len(lines))
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "train.txt"
        with file.open("w", encoding="utf-8") as out:
            out.writelines(f"{labels[i]} {lines[i]}\n" for i in order)
        model = fasttext.train_supervised(
            input=str(file),
            lr=config.learning_rate,
            dim=config.dim,
            epoch=config.epochs,
            wordNgrams=config.word_ngrams,
            minn=config.min_subword,
            maxn=config.max_subword,
            bucket=config.buckets,
            minCount=config.min_count,
            seed=config.seed,
            thread=1,
            verbose=0,
        )
    if any(math.isnan(p) for p, _ in model.f.predict(f"{lines[0]}\n", 1, 0.0, "strict")):
        raise UserError("training diverged to NaN: lower learning_rate, or install fasttext-community, not fasttext")
    with whole_file(path) as temporary:
        model.save_model(str(temporary))
    return sha256_of(path)


def sha256_of(path: pathlib.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Classifier:
    """Scores normalised texts with a fastText model; pickled as a reference to its file.

    Raises:
      UserError: the model's file is missing, has another sha256 or is not a fastText model.
      ConfigError: the model does not have the label.
    """

    def __init__(self, model: QualityModel):
        self._model = model
        path = local_copy(model.path)
        if not path.is_file():
            raise UserError(f"quality model '{path}' is not there: train one with `kanana quality train`")
        if model.sha256 and (found := sha256_of(path)) != model.sha256:
            raise UserError(f"quality model '{path}' has sha256 {found[:16]}…, the config says {model.sha256[:16]}…")
        try:
            fasttext_file.check(path)
            self._fasttext = library().load_model(str(path)).f
        except (ValueError, RuntimeError, MemoryError) as error:
            raise UserError(f"'{path}' is not a fastText model: {str(error) or type(error).__name__}") from error
        labels = self._fasttext.getLabels("strict")[0]
        if model.label and model.label not in labels:
            raise ConfigError(f"quality model '{path}' has no label '{model.label}', but {', '.join(labels[:8])}")
        try:
            self._values = {x: float(x == model.label if model.label else x.removeprefix(LABEL)) for x in labels}
        except ValueError as error:
            raise ConfigError(f"labels of '{path}' are not numbers: name the label that is the score") from error

    def __reduce__(self):
        return Classifier, (self._model,)

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Scores, float64 `[N]`: the label's probability or the expected label; NaN for texts without a known word."""
        lines = prepare(texts, self._model.text, self._model.max_characters)
        return np.array([self._score(self._predict(t)) for t in lines])

    def _predict(self, line: str) -> list[tuple[float, str]]:
        try:
            return self._fasttext.predict(f"{line}\n", len(self._values), 0.0, "strict")
        except RuntimeError as error:  # weights so large that their sums overflow to NaN
            raise UserError(
                f"quality model '{self._model.path}' cannot score a text ({error}): train it again"
            ) from error

    def _score(self, found: list[tuple[float, str]]) -> float:
        total = sum(p for p, _ in found)  # not 1: fastText adds 1e-5 to each probability
        return sum(p * self._values[label] for p, label in found) / total if found else math.nan
