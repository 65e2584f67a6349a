"""Scores of vectors without mteb are those of mteb's own tasks and scorers."""

import json
import os
import subprocess

import own_models
import pytest
from conftest import ROOT
from environments import interpreter

from kanana_jax.data import microworld
from kanana_jax.models.embedding import Embedding

pytestmark = pytest.mark.more


def test_scores_are_mtebs(interpreter, tmp_path):
    python = interpreter("mteb", str(ROOT), "mteb==2.26.24", "torch==2.13.0", "scipy==1.17.1")
    world = microworld.World.create(0, 100)
    folder = own_models.write(tmp_path, "bpe", world)
    card = json.loads((folder / "model.json").read_text("utf-8"))
    about = Embedding(instruction="Query:\n", longest=96)
    (folder / "model.json").write_text(json.dumps(card | {"embedding": about.to_dict()}), "utf-8")
    texts = [document["text"][:120] for document in microworld.documents(world, "news", "ko", 60)]
    pairs = [
        {"sentence1": one, "sentence2": other, "score": i * 7 % 11 / 2}
        for i, (one, other) in enumerate(zip(texts[:40], [texts[3], *texts[20:]]))
    ]
    lines = {
        "korsts.jsonl": pairs,
        "klue.jsonl": [{**row, "labels": {"label": row["score"]}} for row in pairs[:30]],
        "jsts.jsonl": [{**row, "label": row["score"]} for row in pairs[5:]],
        "passages.jsonl": [{"id": str(i), "text": text} for i, text in enumerate(dict.fromkeys(texts))],
        "queries.jsonl": [{"query": text[:40], "positive": str(i)} for i, text in enumerate(dict.fromkeys(texts))],
    }
    for name, rows in lines.items():
        kept = [{k: v for k, v in row.items() if name[:2] == "ko" or k != "score"} for row in rows]
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in kept), "utf-8")
    sets = [f"--sts={task}={tmp_path / file}" for task, file in (("KorSTS", "korsts.jsonl"), ("KLUE-STS", "klue.jsonl"),
            ("JSTS", "jsts.jsonl"))]  # fmt: skip
    sets.append(f"--squad=own={tmp_path / 'passages.jsonl'},{tmp_path / 'queries.jsonl'}")
    out = tmp_path / "out.json"
    command = [python, str(ROOT / "benchmarks/embedding_tasks.py"), str(folder), *sets, "--mteb", f"--output={out}"]
    env = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "HF_HUB_OFFLINE": "1"}
    result = subprocess.run(command, capture_output=True, text=True, env=env)
    assert result.returncode == 0, result.stderr[-3000:]
    found = json.loads(out.read_text("utf-8"))
    for task in ("KorSTS", "KLUE-STS", "JSTS"):
        assert found[task]["cosine_spearman"] == pytest.approx(found[task]["mteb"]["cosine_spearman"], abs=1e-6)
        assert 1e-3 < abs(found[task]["cosine_spearman"]) < 0.999
    # mteb rounds this score to five digits.
    assert round(found["own"]["ndcg@10"], 5) == pytest.approx(found["own"]["mteb"]["ndcg_at_10"], abs=1e-6)
    assert 0.1 < found["own"]["ndcg@10"] < 0.999
