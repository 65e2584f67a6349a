"""docs/proof_of_concept.md from its first command to its last: the blocks of the guide as a shell runs them, made small.

make check-more        or: pytest -m more -s tests/more/test_proof_of_concept.py

The base is a random model with a vocabulary of the microworld: what the gates look at is made and read here, not passed.
With KANANA_BASE=FOLDER (SmolLM2-135M-Instruct, say) that model is the base.
"""

import gzip
import json
import os
import pathlib
import re
import socket
import subprocess
import sys

import own_models
import pytest
from conftest import ROOT

from kanana_jax import cli
from kanana_jax.data import microworld
from kanana_jax.endpoint import Service, post_json

pytest.importorskip("lm_eval")
pytestmark = pytest.mark.more
GUIDE = ROOT / "docs/proof_of_concept.md"
_STEP = re.compile(r"^## (\d+)\. ", re.M)
_BLOCK = re.compile(r"^```sh\n(.*?)^```", re.M | re.S)
QUESTIONS, SERVED = 4, "kanana serve runs/sft/sft --port 8000"


def _small(stage, seq_len):
    settings = ("tokens=2048", "batch_tokens=1024", f"seq_len={seq_len}", "accumulate=1")
    return " ".join([*(f"--config.{stage}.train.{one}" for one in settings), "--config.evaluation.max_bytes=2000"])


_TEXT = "--config.samples.max_new_tokens=4 --config.runtime.compute_dtype=float32"
_PRUNE = " ".join(
    f"--config.pruned.prune.{one}=8" for one in ("importance.samples", "importance.batch_size", "seq_len")
)
# A word of the guide → what makes its command small.
SMALL = {
    "--workdir runs/adapted": f"{_small('adapted', 64)} {_TEXT}",
    "--workdir runs/student": f"{_small('student', 64)} {_TEXT} {_PRUNE}",
    "--workdir runs/sft": f"{_small('sft', 256)} --config.sft.tasks.limit={QUESTIONS}",
    "--workdir runs/student_sft": _small("sft", 256),
    "--chat": f"--limit {QUESTIONS}",
}


def _blocks():
    """Number of a step → its commands."""
    parts = _STEP.split(GUIDE.read_text("utf-8"))
    return {int(n): "".join(_BLOCK.findall(text)) for n, text in zip(parts[1::2], parts[2::2])}


def _lines(file, rows):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What the team brings: documents, of which one has a question in it, questions, solved cases, a base."""
    top = tmp_path_factory.mktemp("poc")
    world = microworld.World.create(0, 400)
    cases = [record["messages"] for record in microworld.documents(world, "chat-facts", "ko", 60)]
    about = "우리 회사의 안내 책자에 따르면 지금 "
    faq = [{"question": about + case[0]["content"], "answers": [case[1]["content"]]} for case in cases[:12]]
    texts = [r["text"] for kind in ("news", "encyclopedia") for r in microworld.documents(world, kind, "ko", 80)]
    documents = [{"id": str(at), "text": "\n".join(texts[at : at + 4])} for at in range(0, len(texts), 4)]
    documents[12 // 4]["text"] += f"\n{faq[0]['question']} {faq[0]['answers'][0]}"
    _lines(top / "faq.jsonl", faq)
    _lines(top / "faq_with_passages.jsonl", [q | {"question": f"{texts[0][:60]}\n\n{q['question']}"} for q in faq])
    _lines(top / "documents/own.jsonl", documents)
    _lines(top / "conversations/cases.jsonl", [{"messages": case} for case in cases[12:]])
    _lines(top / "general/news.jsonl", microworld.documents(world, "news", "en", 60))
    base = os.environ.get("KANANA_BASE")
    if base:
        (top / "MODEL").symlink_to(pathlib.Path(base).resolve())
    else:
        assert cli.main(["export", str(own_models.write(top / "own_model", "bpe", world)), str(top / "MODEL")]) == 0
    (top / "configs").symlink_to(ROOT / "configs")
    (top / "results").mkdir()
    return top


def _environment():
    path = f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}"
    return os.environ | {"PATH": path, "XLA_FLAGS": "--xla_backend_optimization_level=0"}


def _shown(folder, commands):
    """The output of commands of the guide, every one of which must succeed."""
    for word, options in SMALL.items():
        commands = re.sub(rf"{re.escape(word)}(?=\s)", lambda found: f"{found[0]} {options}", commands)
    ran = subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", commands],
        cwd=folder, env=_environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True,
    )  # fmt: skip
    print(ran.stdout, ran.stderr)
    assert ran.returncode == 0, f"{commands}\n{ran.stdout[-2000:]}\n{ran.stderr[-2000:]}"
    return ran.stdout


def _json(file):
    return json.loads(file.read_text("utf-8"))


def _records(file):
    return [json.loads(line) for line in gzip.decompress(file.read_bytes()).splitlines()]


def _served(folder, question):
    """The answer of the guide's server, on a port that is free."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = SERVED.replace("8000", str(port)).split()
    with subprocess.Popen(command, cwd=folder, env=_environment(), stdout=subprocess.DEVNULL) as server:
        try:
            body = {"messages": [{"role": "user", "content": question}], "temperature": 0, "max_tokens": 256}
            service = Service(f"http://127.0.0.1:{port}/v1", attempts=8)
            return post_json(service, "/chat/completions", body, lambda said: said["choices"][0]["message"]["content"])
        finally:
            server.terminate()


def test_the_guide_runs_from_its_first_command_to_its_last(folder):
    blocks = _blocks()
    assert sorted(blocks) == list(range(1, 11)) and all(blocks.values())
    assert "own questions, each with a short answer" in _shown(folder, blocks[1])
    _shown(folder, blocks[2])
    assert (folder / "plan/report.html").is_file() and (folder / "korean/scores.csv").is_file()
    _shown(folder, blocks[3])
    base = _json(folder / "results/base.json")["results"]["faq"]
    assert (base["n"], base["chat"]) == (QUESTIONS, True)
    _shown(folder, blocks[4])
    (dropped,) = [r for r in _records(folder / "filtered/dropped.jsonl.gz") if "contamination" in r["rules"]]
    assert dropped["id"] == "12"  # the one that holds a question
    kept = _records(folder / "own/kept.jsonl.gz")
    assert len(kept) > 30 and "12" not in {record["id"] for record in kept}
    shown = _shown(folder, blocks[5])
    assert "nothing was written" in shown and (folder / "runs/adapted/report.html").is_file()
    _shown(folder, blocks[6])
    logged = [json.loads(line) for line in (folder / "runs/sft/sft/metrics.jsonl").read_text("utf-8").splitlines()]
    steps = [line["step"] for line in logged if "faq" in line.get("eval", {}).get("tasks", {})]
    assert steps == [0, 2]  # before and after
    assert "char_f1" in (folder / "runs/sft/report.html").read_text("utf-8")
    shown = _shown(folder, blocks[7])
    assert "difference" in shown and "exact_match" in shown
    assert _json(folder / "results/sft.json")["results"]["faq"]["n"] == QUESTIONS
    assert "difference" in _shown(folder, blocks[8])
    sizes = [
        _json(folder / f"runs/{name}/model/model.json")["parameters"] for name in ("adapted/adapted", "student/student")
    ]
    assert sizes[1] < sizes[0]
    _shown(folder, blocks[9])
    passages = _json(folder / "results/passages.json")["results"]
    assert passages["faq_with_passages"]["n"] == QUESTIONS
    assert SERVED in blocks[10]
    shown = _shown(folder, "".join(line for line in blocks[10].splitlines(True) if not line.startswith(SERVED)))
    assert "README.md" in shown and "nothing was uploaded" in shown
    card = (folder / "exported/README.md").read_text("utf-8")
    score = _json(folder / "results/sft.json")["results"]["faq"]["char_f1"]
    assert f"| faq | char_f1 | {score:.4f} |" in card and "license: apache-2.0" in card and str(folder) not in card
    sample = json.loads((folder / "results/sft.samples.jsonl").read_text("utf-8").splitlines()[0])
    question = json.loads((folder / "faq.jsonl").read_text("utf-8").splitlines()[0])["question"]
    asked = f"{question}\n\n답만 짧게 쓰세요."
    assert asked in sample["prompt"]
    assert _served(folder, asked).strip() == sample["answers"][0].strip()
