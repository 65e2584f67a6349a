"""Scores beside the signals: measured where a config asks, refused where a rule looks at what is not measured."""

import pickle

import pytest
from conftest import ROOT

from kanana_jax import config as config_lib
from kanana_jax.data import filters
from kanana_jax.data.filters import job, pii, totals
from kanana_jax.data.quality import ClassifierConfig, classifier, quality_model
from kanana_jax.errors import ConfigError

KOREAN = "오늘은 날씨가 맑아서 강가를 따라 오래 걸었다. 문의는 010-1234-5678 또는 kim@example.com 으로 하시면 됩니다."
ENGLISH = "The weather was fine today, so we walked along the river for a long time and watched the children."


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.bin"
    config = ClassifierConfig(dim=4, buckets=100, epochs=30, min_count=1, learning_rate=0.5)
    classifier.train([KOREAN, ENGLISH] * 20, [quality_model.GOOD, classifier.OTHER] * 20, config, path)
    return str(path)


def _record(text, **more):
    return {"id": "1", "text": text, "source": "s", **more}


def _filter(model, **rules):
    return filters.FilterConfig(
        pii=True,
        language="ko",
        quality={"edu": quality_model.QualityModel(model)},
        rules={name: filters.Rule(**rule) for name, rule in rules.items()},
    )


def test_scores_are_those_of_their_parts(model):
    judge = filters.Filter(_filter(model))
    for text in (KOREAN, ENGLISH):
        found = judge(_record(text)).scores
        assert found["pii"] == len(pii.find(text))
        assert found["quality.edu"] == classifier.Classifier(quality_model.QualityModel(model))([text])[0]
    assert found["language"] == 0.0 and judge(_record(KOREAN)).scores["language"] > 0.5
    batch = [verdict.scores for verdict in judge.judge([_record(KOREAN), _record(ENGLISH)])]
    assert batch == [judge(_record(t)).scores for t in (KOREAN, ENGLISH)]
    assert [v.scores for v in pickle.loads(pickle.dumps(judge)).judge([_record(ENGLISH)])] == batch[1:]


def test_rules_look_at_scores(model):
    rules = dict(
        lang=dict(signal="language", min=0.5), edu=dict(signal="quality.edu", min=0.5), pii=dict(signal="pii", max=1)
    )
    judge = filters.Filter(_filter(model, **rules))
    assert judge(_record(KOREAN)).rules == ("pii",)
    assert judge(_record(ENGLISH)).rules == ("lang", "edu")
    # Personal data are counted in what is dropped, and replaced only in what is kept.
    assert judge(_record(KOREAN)).pii == {} and "010" in judge(_record(KOREAN)).record["text"]
    assert filters.Filter(_filter(model))(_record(KOREAN)).pii == {"phone": 1, "email": 1}


@pytest.mark.parametrize("signal, key", [("language", "language"), ("pii", "pii"), ("quality.edu", "quality")])
def test_a_rule_on_what_is_not_measured_is_refused(signal, key):
    with pytest.raises(ConfigError, match=f"filters.ko.*rule 'x' looks at '{signal}'.*'{key}'"):
        config_lib.build(filters.FilterConfig, dict(rules=dict(x=dict(signal=signal))), "filters.ko")
    rule = filters.Rule(signal)
    with pytest.raises(ConfigError, match="stage2.select.web"):
        filters.check_select({}, "web", "ko", {"x": rule}, "stage2.select.web")


def test_a_stage_selects_on_a_score(model):
    configs = {"ko": _filter(model)}
    select = {"edu": filters.Rule("quality.edu", min=0.5)}
    filters.check_select(configs, "web", "ko", select, "stage2.select.web")
    judge = filters.Filters(configs).of("web", "ko", select)
    assert judge(_record(KOREAN)).rules == () and judge(_record(ENGLISH)).rules == ("select.edu",)


def test_a_job_writes_scores_and_marks_what_broke_a_rule(model, tmp_path):
    import json

    from pyarrow import parquet

    with (tmp_path / "a.jsonl").open("w") as file:
        for i, text in enumerate((KOREAN, ENGLISH) * 3):
            file.write(json.dumps({"id": str(i), "text": text}) + "\n")
    configs = {"default": _filter(model, pii=dict(signal="pii", max=1))}
    report = job.run(configs, str(tmp_path / "a.jsonl"), tmp_path / "out", job.JobConfig(signals=True))
    assert report["dropped"] == 3
    table = parquet.read_table(tmp_path / "out/signals.parquet")
    assert table.column_names[1:] == list(totals.columns(configs))
    assert table.column("quality.edu")[0].as_py() == pytest.approx(
        classifier.Classifier(quality_model.QualityModel(model))([KOREAN])[0], abs=1e-6
    )
    (first, *_) = json.loads((tmp_path / "out/examples.json").read_text())["examples"]["pii"]
    marked = [first["text"][start:end] for start, end, _ in first["spans"]]
    assert marked == ["010-1234-5678", "kim@example.com"]


def test_shipped_configs_measure_language_and_personal_data():
    for lang in ("ko", "ja", "en"):
        values = config_lib.read_config_file(str(ROOT / f"configs/data/{lang}.py")).filters[lang]
        assert config_lib.build(filters.FilterConfig, values, lang).scores == ("language", "pii")
