"""The commands of README and guides, executed in their order, small; what is not executed is named with its reason.

make check-more        or: pytest -m more -s tests/more/test_commands_run.py
"""

import gzip
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import commands
import pytest
from conftest import ROOT

from kanana_jax.data import microworld

pytestmark = pytest.mark.more
# How a command begins → why it is not executed.
LEFT_OUT = {
    ("make",): "builds the environment that this runs in",
    ("kanana", "launch"): "needs a cloud account; tests/test_commands.py tries each with --dry-run",
    ("kanana", "eval", "Llama-3.2-1B"): "needs a model and data sets of the reader's",
    ("kanana", "plan"): "compiles for minutes; tests/plan compiles small stages",
    ("python", "benchmarks/"): "measures for minutes to hours; docs/results has the figures",
    ("kanana", "merge", "korean"): "needs models of the reader's; tests/stages has small ones",
    ("kanana", "import", "someones-adapter"): "needs an adapter of the reader's; tests/interop has small ones",
    ("kanana", "judge"): "needs an endpoint; tests/evaluation/test_grading.py has one",
    ("kanana", "push"): "needs an exported folder's name and a token; tests/interop/test_hub.py has a hub of its own",
    ("kanana", "eval", "MODEL"): "needs a model of the reader's; tests/evaluation/test_own_tasks.py has one",
    ("kanana", "serve"): "serves until it is stopped; tests/applications/test_server.py asks it",
    ("python", "launch/local.py"): "tests/multiprocess starts the same processes",
    ("kanana", "observe", "results/"): "needs results of several models; tests/observatory has some",
    ("kanana", "run", "--config", "configs/rag.py"): "needs a model that writes; tests/stages/test_rag_data.py has one",
    ("kanana", "merge", "runs/rag_dpo"): "needs the model of such data",
}
GUIDE = "docs/proof_of_concept.md"  # test_proof_of_concept.py runs it in its own order
# What must be had from elsewhere → why it is not executed.
ELSEWHERE = {
    "gs://": "needs a bucket; tests/storage and tests/more/test_killed_in_buckets.py have servers of their own",
    "s3://": "needs a bucket; tests/storage and tests/more/test_killed_in_buckets.py have servers of their own",
    "--config.profile=quick": "takes minutes; benchmarks/demo.py measures it",
    "--judge-url": "needs an endpoint; tests/applications/test_claims.py has one",
    "--cost": "needs the figures of a plan; tests/observatory has some",
    "runs/rag": "needs data that a model wrote; tests/stages/test_rag_data.py has some",
    "embed_dim=432": "prunes a model of the reader's to this width",
    "--config.trackers.use=": "needs a tracker's package; tests/more/test_trackers.py has them",
}
# Names that the guides leave to the reader.
NAMES = {
    "/path/to/documents": "documents",
    "MODEL,STATUTES,MANUALS": "runs/tiny/stage2,documents/ko,documents/en",
    "MODEL,FOLDER,GENERAL": "runs/tiny/stage2,documents/ko,documents/en",
    "MODEL,FOLDER": "runs/tiny/stage2,documents/ko",
    "MODEL,TEXTS,PAIRS": "runs/tiny/stage2,documents/ko,retrieval.jsonl",
    "MODEL,TEXTS,mined.jsonl": "runs/tiny/stage2,documents/ko,mined.jsonl",
    "MODEL,PROMPTS,TEACHER": "runs/tiny/stage2,prompts.jsonl,runs/tiny/stage2",
    **{f"MODEL,{name}": f"runs/tiny/stage2,{name.lower()}.jsonl" for name in ("CONVERSATIONS", "PAIRS", "PROMPTS")},
    **{
        f"{stage},{name}": f"{stage},{name.lower()}.jsonl"
        for stage, name in (("runs/sft/sft", "PAIRS"), ("runs/dpo/dpo", "PROMPTS"))
    },
    "FOLDER": "faq",
}
# What makes a run of a config small, by its file.
SMALL = {
    "configs/real.py": [
        *(f"--config.{stage}.train.{key}" for stage in ("stage1", "stage2") for key in ("tokens=4096", "seq_len=128")),
        *(f"--config.{stage}.train.batch_tokens=1024" for stage in ("stage1", "stage2")),
        *("--config.tokenizer.vocab_size=600", "--config.stage1.model.vocab_size=600"),
        *(
            "--config.stage1.model.embed_dim=32",
            "--config.stage1.model.mlp_dim=64",
            "--config.stage1.model.num_layers=2",
        ),
        *("--config.evaluation.max_bytes=2000", "--config.samples.max_new_tokens=4"),
    ],
    "configs/adapt.py": [
        *(f"--config.{stage}.train.{key}" for stage in ("adapted", "student") for key in ("tokens=2048", "seq_len=64")),
        *(f"--config.{stage}.train.batch_tokens=512" for stage in ("adapted", "student")),
        *("--config.pruned.prune.seq_len=64", "--config.pruned.prune.importance.samples=8"),
        *("--config.pruned.prune.importance.batch_size=8", "--config.runtime.compute_dtype=float32"),
        *("--config.evaluation.max_bytes=2000", "--config.samples.max_new_tokens=4"),
    ],
}
# Conversations, pairs and prompts; a stage has its kind's name.
for kind in ("sft", "dpo", "reward", "online"):
    SMALL[f"configs/{kind}.py"] = [
        *(f"--config.{kind}.train.{key}" for key in ("tokens=2048", "batch_tokens=1024", "seq_len=256")),
        *(["--config.online.rollout.max_new_tokens=8"] if kind == "online" else []),
        "--config.evaluation.max_bytes=2000",
    ]
SMALL["configs/embed.py"] = [
    *(
        f"--config.{stage}.train.{key}"
        for stage in ("mntp", "contrastive")
        for key in ("tokens=8192", "batch_tokens=4096", "seq_len=1024")
    ),
    *("--config.contrastive.chunks=1", "--config.evaluation.max_bytes=2000"),
]
# A plan of something that does not fit says so by its exit code too.
MAY_FAIL = ("kanana", "plan")


def _why_not(words: tuple[str, ...]) -> str | None:
    if commands.is_sketch(words):
        return "words are left out of it"
    if "--memory" in words:
        return None
    for part, why in ELSEWHERE.items():
        if any(part in word for word in words):
            return why
    for beginning, why in LEFT_OUT.items():
        if all(word.startswith(begin) for word, begin in zip(words, beginning)) and len(words) >= len(beginning):
            return why
    return None


def _small(words: tuple[str, ...], folder: pathlib.Path, begun: dict[str, str]) -> list[str]:
    """The command on the documents, configs and sizes of this test.

    Args:
      begun: workdir → the config of its first run; guides name workdirs anew.
    """
    made: list[str] = []
    for word in words[1:]:
        if word.startswith("results/") and "*" in word:
            made += sorted(str(file.relative_to(folder)) for file in folder.glob(word))
        elif word in ("tiny", "configs/tiny.py"):
            made.append(f"{ROOT}/configs/tiny.py:test")
        elif word == "configs/tiny.py:aligned":
            made.append(f"{ROOT}/{word}-test")
        else:
            for name, own in NAMES.items():
                word = word.replace(name, own)
            made.append(f"{ROOT}/{word}" if word.startswith("configs/") else word)
    if words[1] == "export":  # several guides name one folder
        made[2] = f"{tempfile.mkdtemp(dir=folder)}/{made[2]}"
    value = commands.configs(words) or ""
    file = value.partition(":")[0]
    if words[1] == "run" and "--workdir" in made:
        at = made.index("--workdir") + 1
        if begun.setdefault(made[at], value) != value:
            made[at] += f"-{len(begun)}"
            begun[made[at]] = value
    if words[1] == "mine":  # pairs.jsonl has pairs of answers
        made = [word.replace("pairs.jsonl", "retrieval.jsonl") for word in made]
    made += SMALL.get(file, []) if words[1] == "run" else []
    made += ["--limit", "2"] if words[1] == "eval" and "--tasks" in words else []
    if "--workers" in made:
        made[made.index("--workers") + 1] = "2"
    return made


def _documents(folder: pathlib.Path) -> None:
    """Documents, a crawl and an evaluation set, as the guides name them."""
    world = microworld.World.create(0, 400)
    for lang in ("ko", "en"):
        (folder / "documents" / lang).mkdir(parents=True)
        for kind in ("news", "encyclopedia"):
            for record in microworld.documents(world, kind, lang, 60):
                name = record["id"].replace("/", "_")
                (folder / "documents" / lang / f"{name}.txt").write_text(record["text"] * 2)
    (folder / "web").mkdir()
    records = [r for kind in ("news", "noise") for r in microworld.documents(world, kind, "ko", 80)]
    with gzip.open(folder / "web/crawl.jsonl.gz", "wt") as stream:
        stream.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    for form, name in (("chat", "conversations"), ("pairs", "pairs"), ("prompts", "prompts")):
        records = [r for lang in ("ko", "en") for r in microworld.documents(world, form, lang, 60)]
        lines = (json.dumps(record, ensure_ascii=False) + "\n" for record in records)
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    groups = [r for lang in ("ko", "en") for r in microworld.documents(world, "retrieval", lang, 60)]
    pairs = ({key: record[key] for key in ("anchor", "positive")} for record in groups)
    lines = (json.dumps(pair, ensure_ascii=False) + "\n" for pair in pairs)
    (folder / "retrieval.jsonl").write_text("".join(lines), encoding="utf-8")
    (folder / "passages").mkdir()
    for name in ("documents.jsonl", "queries.jsonl", "passages/all.jsonl"):
        key = "anchor" if name.startswith("q") else "positive"
        texts = (json.dumps({"text": record[key]}, ensure_ascii=False) + "\n" for record in groups)
        (folder / name).write_text("".join(texts), encoding="utf-8")
    question = "What is the product of six and seven, written as a number?"
    (folder / "test.jsonl").write_text(json.dumps({"question": question, "answer": "42"}) + "\n")
    faq = {"question": "한빛시는 어디에 있나요?", "answers": ["바다", "바닷가"]}
    (folder / "faq.jsonl").write_text(json.dumps(faq, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / "results").mkdir()
    (folder / "faq").mkdir()
    (folder / "faq" / "refunds.md").write_text("# 환불\n\n환불은 7일 안에 됩니다.\n", encoding="utf-8")


def test_commands_of_the_documents_run(tmp_path):
    _documents(tmp_path)
    stages = "--config.stages=stage1,stage2"  # those that the guides evaluate
    first = commands.Command("here", ("kanana", "run", "--config", "tiny", "--workdir", "runs/tiny", stages), True)
    shown = [first, *(c for c in commands.of_documents() if c.whole and c.place != GUIDE)]
    failed, run, begun = [], 0, dict[str, str]()
    for command in shown:
        why = _why_not(command.words)
        if why is not None:
            print(f"not executed ({why}): {command}")
            continue
        arguments = _small(command.words, tmp_path, begun)
        done = subprocess.run(
            [sys.executable, "-m", "kanana_jax", *arguments],
            cwd=tmp_path,
            env=os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_backend_optimization_level=0"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        run += 1
        print(f"exit {done.returncode}: {command}")
        fine = (0, 1) if command.words[: len(MAY_FAIL)] == MAY_FAIL else (0,)
        if done.returncode not in fine:
            failed.append(f"{command}\n  as: kanana {' '.join(arguments)}\n  {done.stderr.strip().splitlines()[-1:]}")
    assert not failed, "\n".join(failed)
    assert run > 10
