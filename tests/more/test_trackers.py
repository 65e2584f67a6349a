"""Weights & Biases, MLflow and Trackio, offline: the numbers of `metrics.jsonl`, one run over a stop and a resume."""

import json
import os
import subprocess

import pytest
from conftest import ROOT
from environments import interpreter

pytestmark = pytest.mark.more

WRITE = """
import json, pathlib, sys
from kanana_jax.training import trackers
folder, name, first, last = pathlib.Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
config = trackers.TrackersConfig(use=(name,), project="proof")
(writer,) = trackers.writers(config, folder, "tiny", {"seed": 3, "train": {"tokens": 100}}, first)
for line in lines:
    if first < line["step"] <= last or first == line["step"] == 0:
        writer.write(line)
writer.close()
"""
READ = {
    "wandb": """
import json, pathlib, struct, sys
from wandb.proto import wandb_internal_pb2

def records(data):  # LevelDB's log format: blocks of 32 KiB, of records with checksum, length and type
    at, whole = 7, b""
    while at + 7 <= len(data):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or its last part
            yield whole
            whole = b""

found, ids = {}, set()
for file in sorted(pathlib.Path(sys.argv[1]).glob("wandb/offline-run-*/*.wandb")):
    for data in records(file.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        if record.run.run_id:
            ids.add(record.run.run_id)
        values = {i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in record.history.item}
        for key, value in values.items():
            if not key.startswith("_"):
                found.setdefault(f"{values['_step']} {key}", []).append(value)
print(json.dumps({"runs": len(ids), "found": found}))
""",
    "mlflow": """
import json, sys
from mlflow import MlflowClient
client = MlflowClient()
place = client.get_experiment_by_name("proof").experiment_id
runs = client.search_runs([place])
found = {}
for key in runs[0].data.metrics:
    for metric in client.get_metric_history(runs[0].info.run_id, key):
        found.setdefault(f"{metric.step} {key}", []).append(metric.value)
assert runs[0].data.params["train.tokens"] == "100" and runs[0].info.status == "FINISHED"
print(json.dumps({"runs": len(runs), "found": found}))
""",
    "trackio": """
import json, sys
from trackio.sqlite_storage import SQLiteStorage
runs = SQLiteStorage.get_runs("proof")
found = {}
for row in SQLiteStorage.get_logs("proof", runs[0]):
    for key, value in row.items():
        if key not in ("step", "timestamp"):
            found.setdefault(f"{row['step']} {key}", []).append(value)
print(json.dumps({"runs": len(runs), "found": found}))
""",
}
PACKAGES = {"wandb": "wandb==0.31.0", "mlflow": "mlflow-skinny==3.17.2", "trackio": "trackio==0.43.0"}


def _lines():
    for step in range(0, 61, 10):
        if step:
            yield {"step": step, "tokens": 512 * step, "loss": 4.0 - step / 37, "lr": 1e-3 / (step + 1), "skipped": 0}
        if step % 30 == 0:
            yield {
                "step": step,
                "tokens": 512 * step,
                "eval": {"bits_per_byte": {"lang/ko": 2.0 - step / 97, "lang/en": 3.0}},
                "score": {"name": "bits_per_byte", "better": "lower", "value": 2.5 - step / 91},
            }


def _numbers(line, prefix=""):
    """The definition: every number of a line under the path of its keys."""
    found = {}
    for key, value in line.items():
        if isinstance(value, dict):
            found |= _numbers(value, f"{prefix}{key}/")
        elif not isinstance(value, str) and key != "step":
            found[prefix + key] = value
    return found


@pytest.mark.parametrize("name", PACKAGES)
def test_a_tracker_holds_the_numbers_of_the_file(interpreter, tmp_path, name):
    extra = ["sqlalchemy", "alembic", "pandas"] if name == "mlflow" else []
    python = interpreter(name, PACKAGES[name], *extra)
    folder = tmp_path / "stage1"
    folder.mkdir()
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in _lines()))
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "WANDB_MODE": "offline",
        "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db",
        "TRACKIO_DIR": str(tmp_path / "trackio"),
        "HF_HUB_OFFLINE": "1",
    }

    def call(script, *arguments):
        command = [python, "-c", script, str(folder), *arguments]
        result = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr[-3000:]
        assert "stopped (" not in result.stderr, result.stderr[-3000:]
        return result.stdout

    call(WRITE, name, "0", "30")
    call(WRITE, name, "20", "60")  # resumed from a checkpoint at step 20: 30 is written again
    told = json.loads(call(READ[name]).strip().splitlines()[-1])
    assert told["runs"] == 1
    wanted = {f"{line['step']} {key}": value for line in _lines() for key, value in _numbers(line).items()}
    assert wanted.keys() <= told["found"].keys()
    for key, value in wanted.items():
        assert told["found"][key] == pytest.approx([value] * len(told["found"][key]), rel=1e-12), key
        assert name != "mlflow" or "tokens" in key or len(told["found"][key]) == 1, (
            key
        )  # tokens: of both lines of a step
