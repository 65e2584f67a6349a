"""A random model in a Hugging Face folder, with a vocabulary as it is trained here."""

import gzip
import json

import own_models
import pytest

from kanana_jax.data import microworld

WORLD = microworld.World.create(0, 400)


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return own_models.write(tmp_path_factory.mktemp("random"), "bpe", WORLD)


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """A few questions in the form of published sets."""
    folder = tmp_path_factory.mktemp("data")

    def write(name, rows):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))

    questions = microworld.questions(WORLD, per_task=24)
    chosen = [q for q in questions if q["choices"]]
    for split, rows in (("dev", chosen[:24]), ("test", chosen[24:])):
        mmlu = [
            dict(
                question=q["question"], choices=q["choices"], answer=q["choices"].index(q["answer"]), subject=q["lang"]
            )
            for q in rows
        ]
        write(f"mmlu/{split}.jsonl", mmlu)
    sums = [q for q in questions if q["task"].startswith("arithmetic")]
    write("gsm8k/test.jsonl", [dict(question=q["question"], answer=f"So\n#### {q['answer']}") for q in sums[:12]])
    write("niilc/test.jsonl", [dict(question=q["question"], answers=[q["answer"], "x"]) for q in sums[:8]])
    write("niilc/dev.jsonl", [dict(question=q["question"], answers=[q["answer"]]) for q in sums[8:16]])
    for name in ("mmlu/test", "mmlu/dev"):
        file = folder / f"{name}.jsonl"
        (folder / f"{name}.jsonl.gz").write_bytes(gzip.compress(file.read_bytes()))
    return folder
