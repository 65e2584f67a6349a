"""`kanana best-of-n` on a small random model: its curves against all subsets, counted out from the answers it kept."""

import itertools
import json
import math
import types

import jax
import numpy as np
import own_models
import pytest

from kanana_jax import cli
from kanana_jax.data import microworld
from kanana_jax.data.read import records
from kanana_jax.evaluation import best_of_n as arithmetic
from kanana_jax.interop import model_folder
from kanana_jax.models.architecture import Runtime
from kanana_jax.models.transformer import init_params
from kanana_jax.parallel.mesh import MeshConfig, make_mesh
from kanana_jax.stages import best_of_n, best_of_n_chapter


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """A policy, two reward models with the policy's tokenizer, and prompts whose right answers are short or long."""
    folder = tmp_path_factory.mktemp("best")
    policy = own_models.write(folder, "bpe", microworld.World.create(0, 300))
    a = model_folder.find(policy).architecture
    params = jax.device_get(init_params(a, Runtime(), jax.random.key(1)))
    special = json.loads((policy / "config.json").read_text(encoding="utf-8"))
    special = {key: special[key] for key in ("bos_token_id", "eos_token_id")}
    for i in range(2):
        head = jax.random.normal(jax.random.key(i), (a.embed_dim,))
        model_folder.write(folder / f"reward{i}", a, params, model_folder.card(a), folder / "tokenizer", special, head)
    rows = [
        {"id": f"q{i}", "prompt": f"{i} + 1", "lang": "en", "verifier": "length", "answer": {"min": 0, "max": 9 + i}}
        for i in range(5)
    ]
    (folder / "prompts.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return folder


def run(given, output, *more):
    words = ["best-of-n", str(given / "model"), "--prompts", str(given / "prompts.jsonl"), "--output", str(output)]
    return cli.main([*words, "--max-new-tokens", "8", "--n", "1,2,4", *map(str, more)])


def test_curves_are_means_over_all_subsets(given, tmp_path, capsys):
    rewards = [given / "reward0", given / "reward1"]
    assert run(given, tmp_path / "out.json", "--reward", rewards[0], "--reward", rewards[1]) == 0
    told = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    kept = [json.loads(line) for line in (tmp_path / "out.samples.jsonl").read_text("utf-8").splitlines()]
    assert [line["id"] for line in kept] == [f"q{i}" for i in range(5)]
    for i, line in enumerate(kept):  # the verifier, by hand
        assert line["judged"] == [float(len(text.strip()) <= 9 + i) for text in line["answers"]]
    at_end = {}
    for name in map(str, rewards):
        for point in told["curves"][name]:
            own = []
            for line in kept:
                scores, judged = np.array(line["scores"][name]), np.array(line["judged"])
                best = []
                for subset in map(list, itertools.combinations(range(4), point["n"])):
                    best.append(judged[subset][scores[subset] == scores[subset].max()].mean())
                own.append(np.mean(best))
            own = np.array(own)
            error = own.std(ddof=1) / math.sqrt(len(own))
            assert point["score"] == pytest.approx(own.mean(), abs=1e-9)
            ends = [own.mean() - 1.96 * error, own.mean() + 1.96 * error]
            assert point["score_ci95"] == pytest.approx(np.clip(ends, 0, 1))
            assert point["kl"] == pytest.approx(math.log(point["n"]) - 1 + 1 / point["n"])
            at_end[name] = own
    assert told["best"] == max(at_end, key=lambda name: at_end[name].mean())
    (other,) = told["ahead"]
    apart = at_end[told["best"]] - at_end[other]
    assert told["ahead"][other]["difference"] == pytest.approx(apart.mean())
    page = (tmp_path / "out.html").read_text(encoding="utf-8")
    assert page.count("<svg") == 1 and "Which reward model" in page
    assert f"best: {told['best']}" in capsys.readouterr().out


def test_a_stage_measures_the_same_and_the_report_shows_it(given, tmp_path):
    rewards = tuple(str(given / f"reward{i}") for i in range(2))
    assert run(given, tmp_path / "out.json", "--reward", rewards[0], "--reward", rewards[1]) == 0
    told = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    shapes = types.SimpleNamespace(mesh=make_mesh(MeshConfig(), jax.devices()), seed=0)
    context = types.SimpleNamespace(workdir=tmp_path, shapes=shapes, find=model_folder.find)
    prompts = {"own": str(given / "prompts.jsonl")}
    asked = best_of_n.BestOfNConfig(str(given / "model"), rewards, prompts, n=4, max_new_tokens=8)
    (tmp_path / "evaluated").mkdir()
    best_of_n.measure("evaluated", asked, context)
    found = json.loads((tmp_path / "evaluated/best_of_n.json").read_text(encoding="utf-8"))
    assert [found[key] for key in ("best", "ahead", "ceiling")] == [told[key] for key in ("best", "ahead", "ceiling")]
    for name, points in told["curves"].items():
        for own, point in zip(found["curves"][name], points, strict=True):
            assert own["score_ci95"] == point["score_ci95"] and own["chosen"] == pytest.approx(
                point["chosen"], abs=1e-5
            )
    assert [p["score"] for p in found["ceiling"]] == [p["chosen"] for p in found["ceiling"]]
    assert all(c["score"] >= p["score"] for own in found["curves"].values() for c, p in zip(found["ceiling"], own))
    _, figure, table, chooses, _ = best_of_n_chapter.CHAPTER.blocks({"evaluated": tmp_path / "evaluated"})
    assert "<svg" in figure.svg and len(table.rows) == 3 * 3 and f"'{found['best']}'" in chooses.text
    assert best_of_n_chapter.CHAPTER.blocks({"other": tmp_path}) == []


def test_a_verifier_alone_chooses_what_is_right_if_any_is(given, tmp_path):
    assert run(given, tmp_path / "out.json") == 0
    kept = [json.loads(line) for line in (tmp_path / "out.samples.jsonl").read_text("utf-8").splitlines()]
    told = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert told["curves"]["verifier"][-1]["score"] == np.mean([max(line["judged"]) for line in kept])


def test_pairs_of_the_policys_own_answers_are_read_by_dpo(given, tmp_path, capsys):
    pairs, reward = tmp_path / "pairs.jsonl", given / "reward0"
    more = ("--pairs", pairs, "--pairs-per-prompt", "2", "--n", "16", "--max-new-tokens", "48")  # some answers end
    assert run(given, tmp_path / "out.json", "--reward", reward, *more) == 0
    expected = {}
    for line in map(json.loads, (tmp_path / "out.samples.jsonl").read_text("utf-8").splitlines()):
        scores = line["scores"][str(reward)]
        usable = [i for i in range(16) if line["ended"][i] and line["answers"][i].strip()]
        ranked = sorted(usable, key=lambda i: -scores[i])
        for i, (better, worse) in enumerate(list(zip(ranked, ranked[::-1]))[: len(ranked) // 2]):
            if i < 2 and scores[better] > scores[worse]:
                expected[f"{line['id']}#{i}"] = (line["prompt"], line["answers"][better], line["answers"][worse])
    found = {}
    for record in records.read(str(pairs), source="pairs"):
        (turn,), (chosen,), (rejected,) = record["prompt"], record["chosen"], record["rejected"]
        found[record["id"]] = (turn["content"], chosen["content"], rejected["content"])
        assert record["lang"] == "en"
    assert expected and found == expected
    assert f"{len(found)} pairs" in capsys.readouterr().out


def test_pairs_keep_the_prompts_that_were_answered(tmp_path):
    # Of the second prompt no answer ended by itself; the file of prompts is rewritten while they are answered.
    tools = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}]
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "1 + 1"}]
    rows = [{"id": "q", "prompt": turns, "tools": tools, "lang": "en"}, *({"prompt": f"{i}"} for i in range(2))]
    file, pairs = tmp_path / "prompts.jsonl", tmp_path / "pairs.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    prompts = best_of_n.read_prompts(str(file), 2)
    file.write_text("", encoding="utf-8")
    scores = np.array([[0.0, 1.0]] * 2)
    selection = arithmetic.Selection([["3", "2"]] * 2, {"r": scores}, scores, {}, "r", {})
    compared = best_of_n.Compared(selection, [[True, True], [False, False]], [])
    assert best_of_n.write_pairs(pairs, prompts, compared, 1) == (1, 1)
    (found,) = records.read(str(pairs), source="pairs")
    assert (found["id"], found["prompt"], found["tools"]) == ("q#0", turns, tools)
    assert found["chosen"][0]["content"] == "2" and found["rejected"][0]["content"] == "3"


def test_pairs_of_prompts_that_share_an_id_have_ids_of_their_own(tmp_path):
    ids = ["q", "r", "q", "q#0"]
    prompts = [{"id": id, "prompt": [{"role": "user", "content": f"{i}"}]} for i, id in enumerate(ids)]
    scores = np.arange(16.0).reshape(4, 4)
    selection = arithmetic.Selection([list("abcd")] * 4, {"r": scores}, scores, {}, "r", {})
    compared = best_of_n.Compared(selection, [[True] * 4] * 4, [])
    files = [tmp_path / name for name in ("a.jsonl", "b.jsonl")]
    for file in files:
        assert best_of_n.write_pairs(file, prompts, compared, 2) == (8, 4)
    found = list(records.read(str(files[0]), source="pairs"))
    asked = [record["prompt"][0]["content"] for record in found]
    assert [(record["id"], turn) for record, turn in zip(found, asked)] == [
        *(("q#0", "0"), ("q#1", "0"), ("r#0", "1"), ("r#1", "1")),
        *(("q#2", "2"), ("q#3", "2"), ("q#0#0", "3"), ("q#0#1", "3")),
    ]
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize(
    "more, words",
    [
        (("--verifier", "none"), "leaves nothing to judge by"),
        (("--n", "0,2"), "0 is less than 1"),
        (("--n", "many"), "is not a list of numbers"),
        (("--pairs", "pairs.json"), "ends in .jsonl"),
        (("--pairs", "pairs.jsonl", "--n", "1"), "needs two answers"),
        (("--pairs", "out.samples.jsonl"), "is a file that --output writes"),
        (("--verifier", "taste"), "is not a verifier"),
        (("--temperature", "0"), "otherwise all answers to a prompt are the same"),
    ],
)
def test_refusals(given, tmp_path, monkeypatch, capsys, more, words):
    monkeypatch.chdir(tmp_path)
    assert run(given, "out.json", *more) == 2
    assert words in capsys.readouterr().err
