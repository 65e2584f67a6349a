"""The n-gram baseline is a proper distribution; costs of arms on made-up runs; a simulation that resumes."""

import importlib.util
import json
import math
import sys

import pytest
from conftest import ROOT


def load(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / f"benchmarks/{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


bits_per_byte = load("bits_per_byte")


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_probabilities_sum_to_one(order):
    documents = [[0, 5, 6, 5, 6, 7, 1], [0, 5, 6, 1], [0, 7, 5, 6, 8, 1]]
    model = bits_per_byte.KneserNey(documents, order, 10, 0)
    for context in [(0, 0, 0), (0, 5, 6), (6, 5, 6), (9, 9, 9), (5, 6, 7)]:
        history = context[len(context) - order + 1 :]
        assert sum(model.probability(history, w) for w in range(10)) == pytest.approx(1.0)


def test_bigram_by_hand():
    """Corpus: <s> a b </s>, <s> a a </s>; order 2."""
    a, b, s, e = 2, 3, 0, 1
    model = bits_per_byte.KneserNey([[s, a, b, e], [s, a, a, e]], 2, 4, s)
    # Bigrams: sa 2, ab 1, be 1, aa 1, ae 1; n1 = 4, n2 = 1, so D2 = 4/6. Unigrams count left neighbours:
    # a {s, a} 2, b {a} 1, e {b, a} 2; n1 = 1, n2 = 2, so D1 = 1/5.
    unigram_b = (1 - 0.2 + 0.2 * 3 / 4) / 5
    assert model.probability((a,), b) == pytest.approx((1 - 2 / 3 + 2 / 3 * 3 * unigram_b) / 3)


def test_gains_are_read_off_the_fresh_arms_curve_at_the_same_cost(tmp_path, monkeypatch, capsys):
    """Fresh: 3 − log10(tokens / 1000) bits. 1 FLOP a token for training, 3 for the teacher's forward pass."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))

    def card(folder, tokens, bits, teacher=0.0, calibration=0.0):
        (folder / "model").mkdir(parents=True)
        shape = dict(vocab_size=10, embed_dim=4, tied_embeddings=True)
        flops = dict(train=float(tokens), teacher=teacher, calibration=calibration)
        evaluation = dict(bits_per_byte={"lang/ko": bits - 0.1, "lang/en": bits + 0.1}, loss={"lang/ko": bits})
        value = dict(architecture=shape, parameters=1040, tokens=tokens, flops=flops, evaluation=evaluation)
        (folder / "model/model.json").write_text(json.dumps(value))

    for seed, shift in (("0", 0.0), ("1", 0.02)):
        card(tmp_path / "arms" / seed / "pruned", 0, 0.0, calibration=1000.0)
        for percent, tokens in ((1, 1000), (10, 10_000), (100, 100_000)):
            card(tmp_path / "arms" / seed / f"scratch_ce_{percent}", tokens, 3 - math.log10(tokens / 1000) + shift)
        card(tmp_path / "arms" / seed / "pruned_kd_1", 1000, 1.5 + shift, teacher=3000.0)
        card(tmp_path / "arms" / seed / "pruned_ce_1", 1000, 1.6 + shift)
        card(tmp_path / "arms" / seed / "scratch_kd_1", 1000, 2.9 + shift, teacher=3000.0)
    card(tmp_path / "teacher", 45_000, 0.5)
    arguments = [str(tmp_path / "arms"), "--teacher", str(tmp_path / "teacher"), "--output", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["cost_axes.py", *arguments])
    load("cost_axes").main()
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    (kd,) = [row for row in rows if row["arm"] == "pruned_kd"]
    axes = ("tokens", "student FLOPs", "FLOPs with the teacher's forward")
    found = [float(kd[f"gain: {axis}"].split()[0]) for axis in axes]
    # 1000 of training; with 3000 of the teacher and 1000 of calibration 5000.
    assert found == pytest.approx([-1.5, -1.5, 1.5 - (3 - math.log10(5))], abs=1e-3)
    whole = float(kd["gain: tokens with the teacher's training"].split()[0])
    assert whole == pytest.approx(1.5 - (3 - math.log10(46)), abs=1e-3)
    assert kd["seeds"] == 2 and kd["bits/byte"] == pytest.approx(1.51)
    assert "Apple" in (tmp_path / "out/report.html").read_text()


def test_a_sweep_gives_back_the_slopes_it_was_made_with(tmp_path, monkeypatch):
    """logit(score) = −3 + 0.2·log10 N + 0.5·log10 Korean + 0.1·log10 English tokens, on the config's own design."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    sweep = load("sweep")
    from kanana_jax.config import read_config_file

    config = read_config_file(str(ROOT / "configs/observe/sweep.py")).to_dict()
    assert len(config["stages"]) >= 35
    design, rows = {}, {}
    for stage in config["stages"]:
        size = {"s": 123_000, "m": 262_000, "l": 492_000}[stage[0]]
        design[stage] = sweep.sweep(config, stage) | {"parameters": size}
        ko, en = (design[stage]["tokens"][lang] for lang in ("ko", "en"))
        odds = math.exp(-6 + 0.2 * math.log10(size) + 0.5 * math.log10(ko) + 0.1 * math.log10(en))
        score = odds / (1 + odds)
        rows[stage] = {"told ko": score, "translation ko-en": score**2, "news en": score / 2}
    # 1% Korean of what is not parallel, and half of the parallel text.
    assert design["s_short_en"]["tokens"]["ko"] == pytest.approx(600_000 * (0.95 * 0.01 + 0.025), rel=1e-3)
    more = design["s_middle_en_ko300"]
    assert more["base"] == more["family"] == "s_middle_en"
    assert sum(more["tokens"].values()) == pytest.approx(1_500_000)
    (line, *_) = sweep.slopes(rows, design)
    found = [float(line[f"controlled {name}"].split()[0]) for name in ("size", "ko", "en")]
    assert found == pytest.approx([0.2, 0.5, 0.1], abs=0.01)
    assert [sweep.language(task) for task in ("told ko accuracy", "news en", "translation ko-en")] == ["ko", "en", "en"]

    sweep.write_tables(rows, design, tmp_path)
    from kanana_jax.observatory import tables

    known = tables.read(tmp_path / "scores.csv")
    assert list(known.models["family"])[:2] == ["s_short_en", "s_short_en10"]
    assert set(known.languages) == {"ko", "en"}


def test_noise_between_seeds_is_that_of_the_models_all_have():
    """Two seeds 0.2 apart, models 0.3 apart; the third model is in one run only."""
    first = {"a": {"t": 0.1}, "b": {"t": 0.4}, "c": {"t": 0.9}}
    second = {"a": {"t": 0.3}, "b": {"t": 0.6}}
    (line,) = load("sweep").noise([first, second])
    assert line["models"] == 2 and line["sd of seeds"] == pytest.approx(0.2 / math.sqrt(2), abs=1e-4)
    assert line["sd of models"] == pytest.approx(0.3 / math.sqrt(2), abs=1e-4)


def test_lines_of_code_are_those_with_code_on_them(tmp_path):
    text = '"""Head\nof a file."""\n\nimport os  # why\n\n\nclass A:\n    """A."""\n\n    x = """a\nb"""\n    # no\n'
    (tmp_path / "a.py").write_text(text, encoding="utf-8")
    (tmp_path / "b.py").write_text("def f():\n    'F.'\n    return (\n        1\n    )\n", encoding="utf-8")
    found = load("code_lines").counted([tmp_path])
    assert found == {"files": 2, "lines": 8, "longest": 4, "classes": 1}


def test_retrieval_scores_by_hand(tmp_path):
    """Two of three questions find their passage, one at rank 2: gains 1, 1/log2(3) and 0."""
    retrieval = load("retrieval")
    contexts = {"titles [SEP] a b c": ["b c"], "a d": ["d e", "a a"]}
    paragraphs = [{"context": c, "qas": [{"question": q} for q in qs]} for c, qs in contexts.items()]
    (tmp_path / "s.json").write_text(json.dumps({"data": [{"paragraphs": paragraphs}]}))
    found = retrieval.read(str(tmp_path / "s.json"))
    assert found.texts == ["a b c", "a d"] and found.questions == [("b c", 0), ("d e", 1), ("a a", 1)]
    found = found._replace(questions=[("b c", 0), ("a a", 0), ("zz", 1)])
    scores = retrieval.measured(found, retrieval.CUTS["words between spaces"], 10, 0)
    # "a d" is shorter than "a b c", so that its one a counts more.
    assert scores["ndcg@10"] == pytest.approx((1 + 1 / math.log2(3)) / 3) and scores["recall@10"] == pytest.approx(2 / 3)
    with (tmp_path / "p.jsonl").open("w") as file:
        file.write(json.dumps({"id": "x", "text": "a"}) + "\n")
    (tmp_path / "q.jsonl").write_text(json.dumps({"query": "a", "positive": "x"}))
    assert retrieval.read(f"{tmp_path}/p.jsonl,{tmp_path}/q.jsonl") == (["a"], [("a", 0)])


def test_the_simulation_goes_on_where_it_stopped(monkeypatch, tmp_path, capsys):
    """Every table is a line; the same command makes none again, and what was made at once or in turn is the same."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    simulation = load("observatory_simulation")

    def run(name, tables):
        argv = ["observatory_simulation.py", "--only", "sizes", "--tables", str(tables), "--output", str(tmp_path / name)]
        monkeypatch.setattr(sys, "argv", argv)
        simulation.main()
        return (tmp_path / name).read_text().splitlines()

    first = run("a.jsonl", 2)
    assert [(json.loads(line)["part"], json.loads(line)["table"]) for line in first] == [
        (f"sizes {sizes}", table) for table in (0, 1) for sizes in ("8+3+3+1", "4+4+4+3")
    ]
    assert run("a.jsonl", 2) == first and run("a.jsonl", 3)[:4] == first
    assert run("a.jsonl", 3) == run("b.jsonl", 3)
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")][-1]
    held = [json.loads(line)["held"]["gain"] for line in run("b.jsonl", 3) if "4+4+4+3" in line]
    assert (told["tables"], told["cases"]) == (3, 3 * 19) and told["share"] == round(sum(h[1] for h in held) / 57, 4)
    noise = next(part for part in simulation.parts(simulation.design()) if part.name == "noise, independent, missing 0.4")
    assert noise.stream == (2, 40)  # the seeds that the module promises
