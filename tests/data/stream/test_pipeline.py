"""The stream of batches: exact on resume, the same whoever reads it, every document once an epoch."""

import itertools
import json

import numpy as np
import pytest

from kanana_jax.data.filters import FilterConfig, Filters, Rule
from kanana_jax.data.read import sources
from kanana_jax.data.stream import heldout, mixture, pipeline
from kanana_jax.data.stream.encode import TextEncoder
from kanana_jax.data.stream.packing import Rows
from kanana_jax.data.tokens import training as tokenizer_training
from kanana_jax.data.tokens.tokenizer import encode_document
from kanana_jax.errors import ConfigError, UserError

B, T = 8, 32


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    prepared = {
        name: sources.prepare(
            name, sources.SourceConfig(f"microworld://{kind}/{lang}?count=60&size=100", lang, holdout=0.1), cache
        )
        for name, kind, lang in (("ko_news", "news", "ko"), ("en_news", "news", "en"), ("ko_code", "code", "ko"))
    }
    texts = {s.lang: sources.Texts((s,)) for s in prepared.values()}
    config = tokenizer_training.TokenizerConfig(vocab_size=700, train_bytes=30_000)
    return prepared, tokenizer_training.train_tokenizer(texts, config, cache / "tokenizer")


def _stream(world, weights, *, rows=range(B), start=None, rules=None, select=None, lanes=4, **config):
    prepared, tokenizer = world
    judges = Filters({"default": FilterConfig(rules=rules)} if rules else {})
    return pipeline.BatchStream(
        prepared,
        mixture.normalised(weights, list(prepared), "mixture"),
        TextEncoder(tokenizer),
        {name: judges.of(name, source.lang, (select or {}).get(name, {})) for name, source in prepared.items()},
        pipeline.PipelineConfig(lanes=lanes, **config),
        rows=rows,
        batch_size=B,
        seq_len=T,
        seed=3,
        start=start,
    )


WEIGHTS = {"ko_news": 0.5, "en_news": 0.3, "ko_code": 0.2}


def _take(stream, n):
    return [next(stream) for _ in range(n)]


def _equal(a, b):
    for x, y in zip(a, b, strict=True):
        for key in Rows._fields:
            np.testing.assert_array_equal(getattr(x, key), getattr(y, key), err_msg=key)


BEST_FIT = {"packing": "best_fit", "packing_rows": 3}


@pytest.mark.parametrize("stop", [1, 2, 7, 20])
@pytest.mark.parametrize("config", [{}, BEST_FIT], ids=["in_order", "best_fit"])
def test_resume_is_exact(world, stop, config):
    stream = _stream(world, WEIGHTS, **config)
    _take(stream, stop)
    state = json.loads(json.dumps(stream.get_state()))
    want = _take(stream, 5)
    again = _stream(world, WEIGHTS, **config)
    again.set_state(state)
    _equal(_take(again, 5), want)
    assert again.get_state() == stream.get_state()


@pytest.mark.parametrize("owners", [2, 4])
def test_many_hosts_read_the_same_global_batch(world, owners):
    whole = _take(_stream(world, WEIGHTS), 4)
    parts = [_take(_stream(world, WEIGHTS, rows=np.arange(B).reshape(owners, -1)[i]), 4) for i in range(owners)]
    _equal([Rows(*(np.concatenate(each) for each in zip(*(p[step] for p in parts)))) for step in range(4)], whole)


def test_worker_processes_give_the_same_rows_and_positions(world):
    threads, processes = _stream(world, WEIGHTS), _stream(world, WEIGHTS, workers="processes")
    _equal(_take(processes, 6), _take(threads, 6))
    assert processes.get_state() == threads.get_state()
    after = _stream(world, WEIGHTS)
    after.set_state(processes.get_state())
    _equal(_take(processes, 2), _take(after, 2))
    processes.close()


def test_best_fit_in_other_rows_starts_behind_the_window(world):
    """Half a window of rows of one length is nothing to rows of another: reading resumes at the next document."""
    first = _stream(world, {"ko_news": 1.0}, lanes=1, **BEST_FIT)
    _take(first, 1)  # 8 rows, of windows of at least 3
    state = first.get_state()
    second = _stream(world, {"ko_news": 1.0}, lanes=1, start=state, packing="best_fit", packing_rows=2)
    row = next(second).inputs[0]
    prepared, tokenizer = world
    documents, _ = pipeline.lane_documents(prepared["ko_news"], 0, 1, 3)
    behind = state["0"]["sources"]["ko_news"]["next"]
    # A window's first row begins with the window's first document.
    text = encode_document(tokenizer, json.loads(documents[behind])["text"])
    np.testing.assert_array_equal(row[: min(len(text), T)], text[:T])


def test_rows_have_the_wanted_shares_and_sources(world):
    batches = _take(_stream(world, WEIGHTS), 60)
    counts = np.bincount(np.concatenate([b.source for b in batches]), minlength=3)
    np.testing.assert_allclose(counts / counts.sum(), [0.5, 0.3, 0.2], atol=0.01)
    assert all(len(set(b.source)) > 1 for b in batches)


def test_a_second_stage_goes_on_where_the_first_stopped(world):
    """No document twice before its source is exhausted, over both mixtures and a source that pauses."""
    prepared, _ = world
    first = _stream(world, {"ko_news": 0.6, "en_news": 0.4})
    _take(first, 6)
    state = first.get_state()
    second = _stream(world, {"ko_news": 0.2, "ko_code": 0.8}, start=state)
    batches = _take(second, 6)
    assert set(np.concatenate([b.source for b in batches])) == {0, 2}
    after = second.get_state()
    assert after["0"]["sources"]["en_news"] == state["0"]["sources"]["en_news"]
    report = pipeline.data_report(after, prepared)
    for name, texts in pipeline.documents_seen(after, prepared, seed=3).items():
        assert len(texts) == report["sources"][name]["documents"]
        if report["sources"][name]["epochs"] <= 1:
            assert len(set(texts)) == len(texts)
    assert report["sources"]["ko_news"]["rows"] > pipeline.data_report(state, prepared)["sources"]["ko_news"]["rows"]


def test_all_text_comes_out_once_an_epoch(world):
    """One source, one lane, until the epoch ends: the tokens are those of its documents."""
    prepared, tokenizer = world
    stream = _stream(world, {"ko_code": 1.0}, lanes=1, prefetch=1)
    want = sum(len(encode_document(tokenizer, json.loads(d)["text"])) - 1 for d in prepared["ko_code"].split("train"))
    for _ in itertools.chain(_take(stream, 1), stream_forever(stream)):
        report = pipeline.data_report(stream.get_state(), prepared)["sources"]["ko_code"]
        if report["epochs"] > 1:
            break
        assert report["tokens"] <= want
    assert report["tokens"] > want - 2 * B * T


def stream_forever(stream):
    while True:
        yield next(stream)


@pytest.mark.parametrize("lanes, workers", [(4, "threads"), (2, "processes")])
def test_dropped_documents_are_counted_by_rule_exactly(world, lanes, workers):
    """Over a stop and a change from worker processes to threads."""
    prepared, _ = world
    texts = {json.loads(d)["id"]: json.loads(d)["text"] for d in prepared["ko_news"].split("train")}
    low, high, higher = (int(x) for x in np.quantile([len(t) for t in texts.values()], [0.25, 0.6, 0.8]))
    rules = {
        "short": Rule("characters", min=low),
        "long": Rule("characters", max=high),
        "very_long": Rule("characters", max=higher),
    }
    stream = _stream(world, {"ko_news": 1.0}, rules=rules, lanes=lanes, workers=workers)
    _take(stream, 10)
    again = _stream(world, {"ko_news": 1.0}, rules=rules, lanes=lanes)
    again.set_state(stream.get_state())
    stream.close()
    stream = again
    _take(stream, 10)
    report = pipeline.data_report(stream.get_state(), prepared)
    read = pipeline.documents_seen(stream.get_state(), prepared, seed=3)["ko_news"]
    assert set(read) <= set(texts.values())
    short, long = sum(len(t) < low for t in read), sum(len(t) > high for t in read)
    very_long = sum(len(t) > higher for t in read)
    assert short and long and very_long < long
    assert report["sources"]["ko_news"]["rules"] == {
        "short": {"any": short, "only": short, "first": short},
        "long": {"any": long, "only": long - very_long, "first": long},
        "very_long": {"any": very_long, "only": 0, "first": 0},
    }
    assert report["by_rule"] == report["sources"]["ko_news"]["rules"]
    assert report["documents"] == len(read) and report["kept"] == len(read) - short - long
    assert report["dropped"] == sum(n["first"] for n in report["by_rule"].values())


def test_a_stage_may_select_from_a_source(world):
    prepared, tokenizer = world
    lengths = [len(json.loads(d)["text"]) for d in prepared["ko_news"].split("train")]
    rule = {"ko_news": {"slice": Rule("characters", min=float(np.median(lengths)))}}
    stream = _stream(world, {"ko_news": 0.5, "en_news": 0.5}, select=rule)
    _take(stream, 20)
    report = pipeline.data_report(stream.get_state(), prepared)["sources"]
    assert list(report["ko_news"]["rules"]) == ["select.slice"] and report["en_news"]["rules"] == {}
    assert 0 < report["ko_news"]["kept"] < report["ko_news"]["documents"]


def test_heldout_rows_hold_every_byte(world):
    prepared, tokenizer = world
    for held in heldout.heldout_rows(prepared, TextEncoder(tokenizer), T, 10**9):
        texts = [json.loads(d)["text"] for d in prepared[held.name].split("heldout")]
        assert held.bytes == sum(len(t.encode()) for t in texts) and held.documents == len(texts)
        assert held.rows.weights.sum() == sum(len(encode_document(tokenizer, t)) - 1 for t in texts)


@pytest.mark.parametrize(
    "arguments, error, word",
    [
        (dict(lanes=3), ConfigError, "must divide the 8 rows"),
        (dict(lanes=2, rows=range(2)), ConfigError, "cuts through"),
        (dict(lanes=8, rules={"short": Rule("characters", max=1)}), UserError, "every document of a source is dropped"),
    ],
)
def test_errors(world, arguments, error, word):
    with pytest.raises(error, match=word):
        next(_stream(world, {"ko_news": 1.0}, **arguments))


def test_fewer_documents_than_lanes_are_read_by_several(world, tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"id": str(n), "text": f"문서 {n}"}) + "\n" for n in range(3)))
    source = {"one": sources.prepare("one", sources.SourceConfig(str(path), "ko", holdout=0.0), tmp_path / "c")}
    stream = _stream((source, world[1]), {"one": 1.0})
    next(stream)
    position = stream.get_state()
    seen = pipeline.documents_seen(position, source, 0)["one"]
    assert set(seen) == {"문서 0", "문서 1", "문서 2"}
    assert [state["sources"]["one"]["epoch_documents"] for state in position.values()] == [1] * 4
    stream.close()


@pytest.mark.parametrize("lanes, word", [(2, "documents in a lane, but had"), (8, "lane 4 is not in the saved")])
def test_a_position_of_other_lanes_is_refused(world, lanes, word):
    before = _stream(world, WEIGHTS)
    _take(before, 3)
    with pytest.raises(UserError, match=word):
        _take(_stream(world, WEIGHTS, lanes=lanes, start=before.get_state()), 3)


def test_a_source_that_changed_under_a_saved_position_is_refused(world, tmp_path):
    prepared, vocabulary = world
    before = _stream(world, WEIGHTS)
    _take(before, 3)
    config = sources.SourceConfig("microworld://news/ko?count=30&size=100", "ko", holdout=0.1)
    changed = {**prepared, "ko_news": sources.prepare("ko_news", config, tmp_path)}
    with pytest.raises(UserError, match="source 'ko_news' has other documents.* restore its files"):
        _stream((changed, vocabulary), WEIGHTS).set_state(before.get_state())


@pytest.mark.parametrize("weights", [WEIGHTS, {"en_news": 1.0}])  # also where it was not read yet
def test_other_documents_of_the_same_number_are_refused_and_another_place_is_not(world, tmp_path, weights):
    prepared, vocabulary = world
    lines = [json.dumps(json.loads(data)) for data in prepared["ko_news"].split("train")]

    def made(name, rows):
        path = tmp_path / name / "a.jsonl"
        path.parent.mkdir()
        path.write_text("\n".join(rows))
        config = sources.SourceConfig(str(path), "ko", holdout=0.0)
        source = sources.prepare("ko_news", config, tmp_path / "cache")
        return {**prepared, "ko_news": source}, vocabulary

    before = _stream(made("before", lines), weights)
    _take(before, 3)
    position = before.get_state()
    assert _stream(made("moved", lines), WEIGHTS, start=position) is not None
    for name, rows in {
        "order": lines[::-1],
        "text": [*lines[:-1], lines[-1].replace('"text": "', '"text": "x')],
    }.items():
        with pytest.raises(UserError, match="source 'ko_news' has other documents"):
            _stream(made(name, rows), WEIGHTS, start=position)
