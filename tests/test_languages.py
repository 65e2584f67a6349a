"""One language, however its tag is written, wherever one is read."""

import json

import pytest

from kanana_jax import languages
from kanana_jax.data.dedup import index, minhash
from kanana_jax.data.filters import FilterConfig, Filters, Rule, check_names, job
from kanana_jax.data.read import records, sources
from kanana_jax.data.read.language import detect, shares
from kanana_jax.data.tokens.training import TokenizerConfig
from kanana_jax.errors import ConfigError


@pytest.mark.parametrize(
    "tag, forms",
    [
        ("ko", "ko kor KO Kor ko-KR ko_KR kor_Hang ko-Kore ko-Kore-KR ko_KR.UTF-8 ko-KR-u-ca-dangi"),
        ("ja", "ja jpn JA jpn_Jpan ja-JP ja-Jpan-JP"),
        ("en", "en eng EN en-US eng_Latn en-Latn-GB en_US.utf8"),
        ("zh", "zh zho chi cmn cmn_Hani zh-Hant zho_Hans zh-cmn-Hans-CN"),
        ("de", "de deu ger deu_Latn"),
        ("he", "iw he heb_Hebr"),
        ("no", "nb nob_Latn no nor"),
        ("ceb", "ceb ceb_Latn"),
        ("", "und mul zxx und_Latn"),
        ("default", "default"),
    ],
)
def test_forms_of_one_tag(tag, forms):
    assert {languages.tag(form) for form in forms.split()} == {tag}


def test_names_of_sources_are_no_tags():
    assert [languages.is_tag(name) for name in ("ko", "kor_Hang", "pt-BR", "es-419", "zh-Hant-TW")] == [True] * 5
    assert [languages.is_tag(name) for name in ("ko_web", "korean", "default", "ko_wiki_2")] == [False] * 4


def test_the_codes_of_iso_639_are_a_bijection_but_for_names_of_one_language():
    assert all(2 <= len(k) <= 3 and len(v) == 2 for k, v in languages._SHORT.items())
    assert len(set(languages._SHORT.values())) >= 183
    assert languages.tag("kor") == "ko" and languages.tag("kok") == "kok"


RULE = {"short": Rule("characters", min=10.0)}


def test_records_sources_filters_and_vocabularies_read_any_form(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"text": "짧다", "lang": "kor_Hang"}) + "\n")
    assert [r["lang"] for r in records.read(str(path), source="s")] == ["ko"]
    assert sources.SourceConfig(str(path), "KOR").lang == "ko"
    filters = Filters({"kor_Hang": FilterConfig(rules=RULE), "ko_web": FilterConfig()})
    assert filters.config_of("s", "ko") == FilterConfig(rules=RULE) and filters.config_of("ko_web", "en") is not None
    assert filters.config_of("s", "en") is None and filters.config_of("s", "") is None
    check_names({"ko-KR": FilterConfig()}, ("web", "ko"), "filters")
    with pytest.raises(ConfigError, match="two filters"):
        Filters({"ko": FilterConfig(), "kor": FilterConfig()})
    assert index.DedupConfig(lang="jpn_Jpan").lang == "ja" and index.DedupConfig().lang == "default"
    assert (
        minhash.MinHashConfig(shingles={"default": minhash.Shingles(), "KOR": minhash.Shingles("word", 2)})
        .shingles["ko"]
        .n
        == 2
    )
    assert TokenizerConfig(shares={"kor": 1.0, "eng_Latn": 2.0}).shares == {"ko": 1.0, "en": 2.0}


def test_shares_of_a_language_whatever_its_detector_calls_it():
    hebrew = "בראשית ברא אלהים את השמים ואת הארץ והארץ היתה תהו ובהו וחשך על פני תהום"
    assert detect(hebrew).keys() == {"he"}
    assert shares([hebrew], "heb_Hebr")[0] > 0.8
    assert shares(["오늘은 날씨가 매우 좋아서 공원에 산책을 하러 나갔습니다."], "kor_Hang")[0] > 0.8


def _job(tmp_path, rows, **settings):
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return job.run({"ko": FilterConfig(rules=RULE)}, str(path), tmp_path / "out", job.JobConfig(**settings))


def test_a_filter_that_applies_to_no_record_is_an_error_and_the_folder_can_be_used_again(tmp_path):
    rows = [{"text": "짧다"}, {"text": "이것은 길고 긴 문장입니다"}]
    with pytest.raises(ConfigError, match="no filter.*language is none: give --lang ko"):
        _job(tmp_path, rows)
    assert _job(tmp_path, rows, lang="ko-KR")["kept"] == 1


def test_documents_that_no_filter_judged_are_counted(tmp_path):
    rows = [{"text": "짧다", "lang": "kor"}, {"text": "short", "lang": "eng_Latn"}, {"text": "?"}]
    report = _job(tmp_path, rows)
    assert (report["kept"], report["dropped"], report["unjudged"]) == (2, 1, 2)
    assert report["unjudged_by_lang"] == {"": 1, "en": 1}
