"""seqio tasks over our documents, our documents from seqio tasks, tokens equal on both paths."""

import importlib.util
import json
import sys

import numpy as np
import pytest

from kanana_jax.data import microworld
from kanana_jax.data.arrays.characters import normalise
from kanana_jax.data.read import records, sources
from kanana_jax.data.tokens import training as tokenizer_training
from kanana_jax.errors import UserError

if importlib.util.find_spec("seqio") is None:
    pytest.skip("could not import 'seqio'", allow_module_level=True)

LANGS = ("ko", "en", "ja")


@pytest.fixture(scope="module", autouse=True)
def _libraries():
    """Brings in TensorFlow, which takes ten seconds, and not for a worker that only collects these tests."""
    global seqio, kanana_mixtures, seqio_source, seqio_tasks
    import seqio

    from kanana_jax.data.read import kanana_mixtures, seqio_source, seqio_tasks


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Documents in three languages (two files of Korean), a vocabulary, and the registry over them."""
    folder = tmp_path_factory.mktemp("seqio")
    texts = {}
    for lang in LANGS:
        found = list(microworld.parse_uri(f"microworld://news/{lang}?count=40&size=100"))
        texts[lang] = [r["text"] for r in found]
        parts = 2 if lang == "ko" else 1
        (folder / lang).mkdir()
        for part in range(parts):
            lines = [json.dumps({"id": r["id"], "text": r["text"]}) for r in found[part::parts]]
            (folder / lang / f"{part}.jsonl").write_text("\n".join(lines))
    config = tokenizer_training.TokenizerConfig(vocab_size=900, train_bytes=30_000)
    tokenizer = tokenizer_training.train_tokenizer(texts, config, folder / "tokenizer")
    corpora = [seqio_tasks.Corpus(f"news_{lang}", {"train": str(folder / lang)}) for lang in LANGS]
    seqio_tasks.register(corpora, folder / "tokenizer", {"news_all": {"news_ko": 3.0, "news_en": 1.0}})
    return folder, tokenizer, texts


@pytest.mark.parametrize("lang", LANGS)
def test_tokens_equal_the_grain_path(world, lang):
    folder, tokenizer, texts = world
    examples = seqio.get_mixture_or_task(f"news_{lang}").get_dataset(None, "train", shuffle=False).as_numpy_iterator()
    found = {example["targets_pretokenized"].decode(): example["targets"] for example in examples}
    assert set(found) == set(texts[lang])
    for text, ids in found.items():
        np.testing.assert_array_equal(ids, [*tokenizer.encode(text), tokenizer.eos_id])
    vocabulary = seqio_tasks.TokenizerVocabulary(folder / "tokenizer")
    for text in (*texts[lang], "  두 칸  ", "끝\n줄", "ガラス ㅋㅋ 😀", "\u2581"):
        assert vocabulary.encode(text) == tokenizer.encode(text).tolist()
        assert vocabulary.encode_tf(text).numpy().tolist() == tokenizer.encode(text).tolist()
        assert vocabulary.decode_tf(tokenizer.encode(text)).numpy().decode() == text


def test_normalisation_is_that_of_the_filters(tmp_path, world):
    (tmp_path / "a.jsonl").write_text(json.dumps({"id": "1", "text": "\u1112\u1161\u11ab\u1100\u1173\u11af が"}))
    dataset = seqio_tasks.normalise(seqio_tasks.DocumentSource({"train": str(tmp_path)}).get_dataset())
    (example,) = dataset.as_numpy_iterator()
    assert example["text"].decode() == normalise("\u1112\u1161\u11ab\u1100\u1173\u11af が") == "한글 が"


def test_a_task_is_a_source(world, tmp_path):
    _, _, texts = world
    found = list(records.read("seqio://news_ko", source="s", lang="ko"))
    assert sorted(r["text"] for r in found) == sorted(texts["ko"]) and found[0]["id"].startswith("microworld/")
    prepared = sources.prepare("s", sources.SourceConfig("seqio://news_ko", "ko", holdout=0.0), tmp_path)
    assert prepared.documents("train") == 40


def test_tasks_without_plain_text_and_with_inputs_are_decoded(world):
    folder, _, _ = world
    vocabulary = seqio_tasks.TokenizerVocabulary(folder / "tokenizer")
    feature = seqio.Feature(vocabulary, add_eos=False)

    def make(split, shuffle_files, seed=None):
        ids = {k: vocabulary.encode(v) for k, v in (("inputs", "질문"), ("targets", "답"))}
        return seqio_tasks.tf.data.Dataset.from_tensors({k: np.array(v, np.int32) for k, v in ids.items()})

    seqio.TaskRegistry.add(
        "pairs",
        source=seqio.FunctionDataSource(make, splits=["train"]),
        preprocessors=[],
        output_features={"inputs": feature, "targets": feature},
    )
    (record,) = records.read("seqio://pairs", source="s")
    assert record["text"] == "질문\n답" and record["id"] == "pairs/train/0"


def test_mixture_rates(world):
    mixture = seqio.MixtureRegistry.get("news_all")
    assert {t.name: mixture.get_rate(t) for t in mixture.tasks} == {"news_ko": 3.0, "news_en": 1.0}
    assert sum(kanana_mixtures.STAGE1.values()) == pytest.approx(100, abs=0.2)
    assert sum(kanana_mixtures.STAGE2.values()) == pytest.approx(100, abs=0.2)


def test_beam_caches_a_task_as_array_records(world, tmp_path):
    assert seqio_source.cache("news_ko", "train", tmp_path / "out") == 40
    assert len(list((tmp_path / "out").glob("train-*-of-00002.array_record"))) == 2
    cached = {r["id"]: r["text"] for r in records.read(str(tmp_path / "out"), source="s")}
    assert cached == {r["id"]: r["text"] for r in records.read("seqio://news_ko", source="s")}
    with pytest.raises(UserError, match="already"):
        seqio_source.cache("news_ko", "train", tmp_path / "out")


@pytest.mark.parametrize(
    "uri,words",
    [
        ("seqio://news_kor", ["no seqio task 'news_kor'", "news_ko"]),
        ("seqio://news_ko?split=test", ["no split 'test'", "train"]),
        ("seqio://news_ko?splt=train", ["no parameter 'splt'", "split"]),
        ("seqio://news_ko?module=no_such_module", ["no_such_module"]),
    ],
)
def test_errors(world, uri, words):
    with pytest.raises(UserError) as error:
        list(records.read(uri, source="s"))
    assert all(word in str(error.value) for word in words)
    with pytest.raises(UserError, match="mixture 'm' names 'news_fr'"):
        seqio_tasks.register([], world[0] / "tokenizer", {"m": {"news_fr": 1.0}})


def test_the_training_path_does_not_import_tensorflow():
    import subprocess

    code = "import sys, kanana_jax.recipe, kanana_jax.data.read.records, kanana_jax.data.filters.job; " \
           "assert not any(m.split('.')[0] in ('tensorflow', 'seqio', 'apache_beam') for m in sys.modules)"  # fmt: skip
    subprocess.run([sys.executable, "-c", code], check=True)
