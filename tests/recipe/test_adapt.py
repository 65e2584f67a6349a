"""configs/adapt.py on a small random model of another house: what it decides, and the whole run."""

import json
import math
import shutil

import ml_dtypes
import numpy as np
import own_models
import pytest
from conftest import ROOT
from safetensors.numpy import load_file, save_file

from kanana_jax import config as config_lib
from kanana_jax.data import microworld
from kanana_jax.data.tokens.tokenizer import load_tokenizer
from kanana_jax.errors import ConfigError
from kanana_jax.interop import model_folder
from kanana_jax.recipe import run as recipe
from kanana_jax.recipe.config import override

CONFIG = ROOT / "configs/adapt.py"


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """A Hugging Face folder in bfloat16 without model.json, Korean documents, and English ones to replay."""
    folder, world = tmp_path_factory.mktemp("adapt"), microworld.World.create(0, 300)
    model = own_models.write(folder, "bpe", world)
    (model / "model.json").unlink()
    for weights in model.glob("*.safetensors"):
        save_file({k: v.astype(ml_dtypes.bfloat16) for k, v in load_file(weights).items()}, weights, {"format": "pt"})
    for name, kind, lang in (("own/ko", "news", "ko"), ("replay/en", "textbook", "en")):
        (folder / name).mkdir(parents=True)
        lines = [json.dumps(d, ensure_ascii=False) for d in microworld.documents(world, kind, lang, 60)]
        (folder / name / "documents.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return model, folder / "own", folder / "replay"


def read(*folders):
    return config_lib.read_config_file(f"{CONFIG}:{','.join(str(folder) for folder in folders)}")


def test_its_rules(given):
    model, own, replay = given
    config = read(model, own, replay)
    _, stages = recipe.parse(config)
    assert dict(config.adapted.mixture) == {"own_ko": 0.75, "replay_en": 0.25}
    assert config.runtime.param_dtype == "bfloat16" and config.tokenizer.path == str(model)
    train = stages["adapted"].train
    size = (own / "ko/documents.jsonl").stat().st_size
    assert train.tokens == int(size / 0.75) and train.batch_size & (train.batch_size - 1) == 0
    assert train.optimizer.schedule.kind == "cosine" and train.optimizer.schedule.final == 0.1
    # The law and the root of the batch by hand: non-embedding parameters, attention, 4e12 tokens.
    a = model_folder.find(model).architecture
    layer = 2 * 32 * 4 * 8 + 2 * 32 * 2 * 8 + 3 * 32 * 48 + 2 * 32
    compute = (6 * (2 * layer + 32) + 12 * a.num_layers * 4 * 8 * train.seq_len) * 4e12
    rate = 0.3118 * compute**-0.125 * math.sqrt(train.batch_tokens / (0.2920 * compute**0.3271))
    assert train.optimizer.learning_rate == pytest.approx(rate, rel=0.05)
    alone = read(model, own)
    assert dict(alone.adapted.mixture) == {"own_ko": 1.0} and alone.adapted.train.tokens < train.tokens


@pytest.mark.parametrize(
    "folders, words",
    [
        (["{model}"], "give a model folder and a folder of documents"),
        (["{model}", "{own}", ""], "give a model folder and a folder of documents"),
        (["{own}", "{own}"], "is not a model: it has no config.json"),
        (["{model}", "{own}/nowhere"], "nowhere does not exist: name a folder of documents"),
    ],
)
def test_it_refuses_in_a_sentence(given, folders, words):
    model, own, _ = given
    with pytest.raises(ConfigError, match=words):
        read(*(folder.format(model=model, own=own) for folder in folders))


def test_a_model_is_adapted_pruned_and_distilled(given, tmp_path):
    model, own, replay = given
    config = read(model, own, replay)
    train = ["seq_len=64", "batch_tokens=512", "accumulate=1", "eval_every=0", "log_every=1"]
    override(
        config,
        [
            "runtime.compute_dtype=float32",
            "evaluation.max_bytes=2000",
            "samples.max_new_tokens=4",
            "pruned.prune.seq_len=64",
            "pruned.prune.importance.samples=8",
            "pruned.prune.importance.batch_size=8",
            *(f"{stage}.train.{key}" for stage in ("adapted", "student") for key in train),
            "adapted.train.tokens=6000",
            "adapted.train.optimizer.learning_rate=0.003",
            "student.train.tokens=1500",
        ],
    )
    recipe.run(config, tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "adapted/metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    before, after = (row["eval"]["bits_per_byte"]["lang/ko"] for row in rows if "eval" in row)
    assert after < before - 0.3
    told = [json.loads((tmp_path / "adapted" / name).read_text(encoding="utf-8")) for name in ("samples_before.json", "samples.json")]  # fmt: skip
    assert [s["prompt"] for s in told[0]] == [s["prompt"] for s in told[1]]
    assert [s["text"] for s in told[0]] != [s["text"] for s in told[1]] and told[0][0]["step"] == 0
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "start of adapted" in page and "Before adapted" in page and "start of student" in page
    model_folder.transfer(tmp_path / "adapted/model", tmp_path / "exported", keep_card=False)
    dtypes = {v.dtype for file in (tmp_path / "exported").glob("*.safetensors") for v in load_file(file).values()}
    assert dtypes == {np.dtype(ml_dtypes.bfloat16)}
    # What was read is what was written: same tokenizer, another model.
    assert load_tokenizer(tmp_path / "exported").fingerprint == load_tokenizer(model).fingerprint
    student = model_folder.find(tmp_path / "student").architecture
    assert (student.embed_dim, student.mlp_dim) == (24, 32)
    assert not (tmp_path / "student/samples_before.json").exists()


@pytest.fixture(scope="module")
def talking(given, tmp_path_factory):
    """The model with a chat template, and its Korean documents beside conversations and pairs in three forms."""
    model, own, replay = given
    folder, world = tmp_path_factory.mktemp("talking"), microworld.World.create(0, 300)
    shutil.copytree(model, folder / "model")
    (folder / "model/chat_template.jinja").write_text(
        "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% if m.role == 'assistant' %}"
        "{{ eos_token }}{% endif %}{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}",
        encoding="utf-8",
    )
    shutil.copytree(own, folder / "own")
    talks = [microworld.document(world, "chat-arithmetic", "ko", i)["messages"] for i in range(30)]
    lines = {
        "talks": [{"messages": turns} for turns in talks],
        "alpaca": [{"instruction": t[0]["content"], "output": t[1]["content"]} for t in talks],
        "pairs": [microworld.document(world, "pairs-arithmetic", "ko", i) for i in range(30)],
    }
    for name, rows in lines.items():
        text = "\n".join(json.dumps({k: v for k, v in row.items() if k != "id"}, ensure_ascii=False) for row in rows)
        (folder / f"own/ko/{name}.jsonl").write_text(text, encoding="utf-8")
    return folder / "model", folder / "own", replay


def test_conversations_and_pairs_become_stages(talking):
    model, own, replay = talking
    config = read(model, own, replay)
    override(config, ["sft.lora.rank=4", "dpo.lora.rank=4"])
    _, stages = recipe.parse(config)
    assert list(stages) == ["adapted", "sft", "dpo", "pruned", "student"] and stages["dpo"].lora.rank == 4
    assert [stages[name].start for name in ("sft", "dpo", "pruned")] == ["adapted", "sft", "adapted"]
    assert {name: source.form for name, source in config.sources.items() if name != "replay_en"} == {
        "own_ko": "text", "own_ko_chat": "messages", "own_ko_pairs": "chosen"}  # fmt: skip
    assert "form" not in config.sources["replay_en"]
    assert dict(config.dpo.mixture) == {"own_ko_pairs": 1.0} and stages["sft"].replay
    mixture = dict(config.sft.mixture)
    assert mixture.pop("own_ko_chat") == 0.95 and sum(mixture.values()) == pytest.approx(0.05, abs=1e-5)
    # Text keeps its own size: what is trained on as text is not the conversations.
    assert config.adapted.train.tokens == pytest.approx(read(*given_text(talking)).adapted.train.tokens, rel=0.2)


def given_text(talking):
    model, own, replay = talking
    return model, own / "ko/documents.jsonl", replay


def test_conversations_alone_need_no_stage_of_text(talking, tmp_path):
    model, own, _ = talking
    shutil.copy(own / "ko/talks.jsonl", tmp_path)
    config = read(model, tmp_path)
    assert tuple(config.stages) == ("sft",) and config.sft.start == str(model) and "replay" not in config.sft
    shutil.copytree(model, tmp_path / "mute")
    (tmp_path / "mute/chat_template.jinja").write_text("{{ raise_exception('it does not chat') }}", encoding="utf-8")
    with pytest.raises(ConfigError, match="it does not chat"):
        read(tmp_path / "mute", tmp_path / "talks.jsonl")


def test_it_learns_to_answer_and_to_prefer(talking, tmp_path):
    config = read(*talking)
    train = ["seq_len=95", "batch_tokens=760", "accumulate=1", "eval_every=0", "log_every=1"]
    override(
        config,
        [
            "stages=sft,dpo",
            f"sft.start={talking[0]}",
            "runtime.compute_dtype=float32",
            *(f"{stage}.train.{key}" for stage in ("sft", "dpo") for key in train),
            "sft.train.tokens=4560",
            "sft.train.optimizer.learning_rate=0.01",
            "dpo.train.tokens=760",
        ],
    )
    config.samples.prompts = {}
    recipe.run(config, tmp_path)
    rows = {
        name: [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text("utf-8").splitlines()]
        for name in ("sft", "dpo")
    }
    before, after = (row["eval"]["answer_loss"]["lang/ko"] for row in rows["sft"] if "eval" in row)
    assert after < before
    first = next(row for row in rows["dpo"] if "eval" not in row)
    assert first["loss"] == pytest.approx(math.log(2), abs=2e-3)  # the reference is in bfloat16
    told = json.loads((tmp_path / "sft/data_report.json").read_text(encoding="utf-8"))["sources"]
    assert {name: n["documents_total"] for name, n in told.items()}["own_ko_pairs"] < 30
    seen = {name: n["tokens"] for name, n in told.items() if n["tokens"]}
    assert seen.keys() >= {"own_ko_chat", "own_ko"} and "own_ko_pairs" not in seen
