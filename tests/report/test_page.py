"""Pages: well-formed, escaped, self-contained, the same bytes twice; runs that are broken off."""

import html.parser
import json
import math
import re

import numpy as np
import pytest

from kanana_jax.errors import UserError
from kanana_jax.report.page import Code, Details, Figure, KeyValues, Page, Sample, Samples, Section, Table, Text, render
from kanana_jax.report.plots import MAX_POINTS, Series, bars, heatmap, histogram, lines, thin
from kanana_jax.report.run import write_run_report
from kanana_jax.report.svg import drawn_once, inches

HOSTILE = '<script>alert(1)</script> & "quotes" 한글'


class _Balance(html.parser.HTMLParser):
    VOID = {"meta", "br", "hr", "img", "link"}

    def __init__(self):
        super().__init__()
        self.open, self.scripts, self.text = [], 0, []

    def handle_starttag(self, tag, attributes):
        self.scripts += tag == "script"
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def _check(page: str) -> str:
    parser = _Balance()
    parser.feed(page)
    assert not parser.open and not parser.scripts
    assert not re.search(r"""(src|href)=["'](?!#)|url\((?!#)|https?://""", page)
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    return "".join(parser.text)


def test_everything_is_escaped_and_balanced():
    curve = np.sin(np.arange(5000) / 100)
    page = Page(
        HOSTILE,
        HOSTILE,
        [
            Section(
                HOSTILE,
                [
                    Text(HOSTILE),
                    Code(HOSTILE),
                    Text(HOSTILE, "warning"),
                    KeyValues({HOSTILE: HOSTILE, "n": 1234567}),
                    Samples([Sample("ko", HOSTILE, HOSTILE), Sample("en", "a", "b\ud800")], HOSTILE),
                    Details(HOSTILE, [Code(HOSTILE)]),
                    Table((HOSTILE, "n"), [(HOSTILE, 1), ("b", None)], HOSTILE),
                    Figure(
                        lines(
                            [Series("a", range(5000), curve), Series("b", [0, 1], [1, 2])],
                            x="x",
                            y="y",
                            boundaries={"s": 10},
                        ),
                        HOSTILE,
                    ),
                    Figure(bars(["ko_web", "한국어"], {"wanted": [1, 2], HOSTILE: [2, 1]}, x="%"), "bars"),
                    Figure(bars(["a"], {"only": [float("nan")]}, x="%", stacked=True), "stacked"),
                    Figure(histogram({"ko": curve, HOSTILE: []}, x=HOSTILE, marks={HOSTILE: 0.5}), "histogram"),
                    Figure(heatmap(["층 1", HOSTILE], ["x"], [[1.0], [float("nan")]], diverging=True), "heatmap"),
                ],
            ),
            Section("empty", []),
        ],
    )
    text = _check(render(page))
    assert text.count("<script>alert(1)</script>") >= 8 and "empty" not in text and "한국어" in text


def test_plots_are_deterministic_and_thinned():
    make = lambda: lines.__wrapped__([Series("a", range(50_000), np.arange(50_000))], x="x", y="y")  # noqa: E731
    assert make() == make()
    assert len(make()) < 200 * MAX_POINTS


def test_a_figure_is_drawn_again_only_when_its_data_change():
    """However they are given; a ragged one is refused each time."""

    @drawn_once
    def figure(series, *, y=""):
        drawn.append(y)
        return f"{series[0].y[-1]} {y}"

    drawn, values = [], [1.0, 2.0]
    for _ in range(2):
        assert figure([Series("a", [1, 2], values)]) == figure([Series("a", [1, 2], np.array(values))])
    assert len(drawn) == 1
    values[-1] = math.nan
    assert figure([Series("a", [1, 2], values)]) == "nan " and figure([Series("a", [1, 2], values)], y="b")
    assert drawn == ["", "", "b"]
    few = drawn_once(lambda name: drawn.append(name) or name, most=2)
    assert [few(name) for name in "xyxzx"] == list("xyxzx") and drawn[3:] == list("xyzx")


def test_thinning_keeps_spikes():
    y = np.zeros(50_000)
    y[12_345], y[23_456], y[34_567] = 7, -3, np.nan
    x, kept = thin(np.arange(50_000), y)
    assert len(x) <= MAX_POINTS and 7 in kept and -3 in kept and 12_345 in x


@pytest.mark.parametrize("low, high", [(0.53, 1.4), (1.1, 1.9), (0.04, 2.5), (3, 5e6)])
def test_a_logarithmic_axis_has_ticks_however_short(low, high):
    texts = re.findall(r">([^<>]*)</text>", lines([Series("a", [1, 2], [low, high])], x="x", y="y", log_y=True))
    assert len(texts[texts.index("x") + 1 : texts.index("y")]) >= 3


@pytest.mark.parametrize("top", [5.0, 1.3e-3, 1.3e-5])
def test_the_title_of_an_axis_covers_no_number(top):
    svg = lines([Series("a", [1, 2, 3], [0.0, top / 5, top])], x="steps", y="nats")
    numbers = [(float(x), text) for x, text in re.findall(r'anchor: end[^>]* x="([\d.]+)"[^>]*>([^<]*)<', svg)]
    (title,) = [float(x) for x in re.findall(r'x="([\d.]+)"[^>]*>nats<', svg)]
    assert len(numbers) > 3 and title > 9 / 2  # half a line of 9 points: it is not cut off
    assert all(x - 72 * inches(text) > title + 9 / 2 - 2 for x, text in numbers)


def test_values_stand_beyond_the_ends_of_their_bars():
    found = re.findall(
        r'text-anchor: (\w+)[^>]*x="([\d.]+)"[^>]*>(-?1.25)</text>', bars("ab", {"v": [1.25, -1.25]}, x="x")
    )
    (right, x_right, _), (left, x_left, _) = sorted(found, key=lambda label: label[2] == "-1.25")
    assert (right, left) == ("start", "end") and float(x_right) > float(x_left)


def test_tables_and_plots_refuse_ragged_input():
    with pytest.raises(ValueError, match="cells"):
        Table(("a", "b"), [(1,)])
    with pytest.raises(ValueError, match="equal length"):
        Series("a", [1, 2], [1])
    with pytest.raises(ValueError, match="one value for each group"):
        bars(["a", "b"], {"v": [1]}, x="x")
    with pytest.raises(ValueError, match="rows of values"):
        heatmap(["a", "b"], ["c"], [[1]])


def test_numbers_of_a_column_share_their_decimals():
    table = Table(("name", "v", "n"), [("a", 0.5, 1_000), ("b", 12.25, None)], formats={"n": ",d"})
    page = render(Page("t", "", [Section("s", [table])]))
    assert ">0.50<" in page and ">12.25<" in page and ">1,000<" in page and ">–<" in page


def _workdir(folder, steps=120):
    config = {"name": "run", "stages": ["stage1", "stage2"]}
    for name in config["stages"]:
        config[name] = {"train": {"tokens": 1000 * steps, "batch_tokens": 1000}, "mixture": {"ko": 0.5, "en": 0.5}}
    (folder / "config.json").write_text(
        json.dumps(
            {
                "config": config,
                "command": "kanana run --config x",
                "versions": {"jax": "1"},
                "git_revision": None,
                "seed": 0,
                "devices": "1 × cpu",
                "started": "today",
            }
        )
    )
    stage = folder / "stage1"
    stage.mkdir()
    rows = []
    for step in range(1, steps + 1):
        rows.append(
            {
                "step": step,
                "tokens": 1000 * step,
                "loss": 9 / step,
                "lr": 1e-3,
                "grad_norm": 1.0,
                "skipped": 0,
                "z_loss": 0.1,
                "tokens_per_s": 100.0,
                "mfu": 0.5,
                "data_wait_s": 0.001,
                "step_s": 1.0,
            }
            if step > 1
            else {"step": 1, "tokens": 1000, "loss": 9.0, "lr": 1e-3, "grad_norm": 1.0, "skipped": 0}
        )
        if step % 40 == 0:
            rows.append(
                {"step": step, "tokens": 1000 * step, "eval": {"bits_per_byte": {"lang/ko": 2.5, "source/ko": 2.5}}}
            )
    (stage / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows) + '{"step": 12')
    return folder


def test_a_run_that_is_under_way(tmp_path):
    text = _check(write_run_report(_workdir(tmp_path)).read_text())
    assert (
        "stage1: step 120 of 120" in text
        and "stage2: not started" in text
        and "2.5" in text
        and "No stage is finished yet" in text
    )


def test_a_run_that_has_just_begun(tmp_path):
    _workdir(tmp_path)
    (tmp_path / "stage1/metrics.jsonl").write_text("")
    text = _check(write_run_report(tmp_path).read_text())
    assert "No step is logged yet" in text
    assert write_run_report(tmp_path).read_bytes() == write_run_report(tmp_path).read_bytes()


def test_not_a_workdir(tmp_path):
    with pytest.raises(UserError, match="config.json is missing"):
        write_run_report(tmp_path)
