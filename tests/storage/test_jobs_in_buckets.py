"""Data jobs and models whose inputs and outputs are in a bucket, against the same in folders."""

import json

import pytest
from buckets import BUCKET, gcs, s3

from kanana_jax import endpoint
from kanana_jax.cli import main
from kanana_jax.evaluation.grading import JudgeConfig, Replies
from kanana_jax.files import is_remote, place
from kanana_jax.files.mirror import mirrored
from kanana_jax.training.metrics import JsonLines


# Paths of either store: tests/storage/test_bucket_paths.py.
@pytest.fixture(params=["gs", pytest.param("s3", marks=pytest.mark.more)])
def root(request, tmp_path, monkeypatch):
    monkeypatch.setenv("KANANA_JAX_CACHE", str(tmp_path / "cache"))
    request.getfixturevalue("gcs" if request.param == "gs" else "s3")
    return place(f"{request.param}://{BUCKET}/{request.node.name.partition('[')[0]}")


def test_duplicates_are_found_as_in_a_folder(root, tmp_path):
    for place_ in (root, tmp_path):
        (place_ / "docs").mkdir(exist_ok=True)
        for i in range(2):
            rows = [{"id": f"{i}-{j}", "text": f"A document of some words, number {j % 4}. " * 9} for j in range(8)]
            text = "".join(json.dumps(row) + "\n" for row in rows)
            (place_ / "docs" / f"{i}.jsonl").write_text(text, encoding="utf-8")
        assert main(["dedup", "--input", f"{place_}/docs/*.jsonl", "--output", f"{place_}/out"]) == 0
    found = [json.loads((folder / "out/report.json").read_text(encoding="utf-8")) for folder in (root, tmp_path)]
    assert [(r["documents"], r["kept"], r["exact"]) for r in found] == [(16, 4, 12)] * 2
    assert main(["dedup", "--input", f"{root}/nothing", "--output", f"{root}/other"]) == 1
    assert main(["dedup", "--input", f"{root}/docs", "--output", f"{root}/docs/out"]) == 2


def test_a_mirrored_folder_is_brought_back_after_an_error_and_resumed(root):
    folder = root / "job"
    with pytest.raises(ZeroDivisionError), mirrored(folder, ("state.json",)) as local:
        assert not is_remote(local)
        for name in ("a", "sub/b", "state.json"):
            (local / name).parent.mkdir(exist_ok=True)
            (local / name).write_text(name, encoding="utf-8")
        raise ZeroDivisionError
    assert sorted(folder.objects()) == ["a", "state.json", "sub/b"]
    (folder / "a").write_text("changed elsewhere", encoding="utf-8")
    with mirrored(folder, ("state.json",)) as local:
        assert (local / "a").read_text(encoding="utf-8") == "changed elsewhere"
        assert (local / "sub" / "b").read_text(encoding="utf-8") == "sub/b"
        (local / "sub" / "b").unlink()
    assert sorted(folder.objects()) == ["a", "state.json"] and not local.exists()


def test_paid_replies_are_kept_in_the_bucket(root, monkeypatch):
    asked, file = [], root / "replies.jsonl"

    def post(service, path, body, read):
        text = body["messages"][0]["content"]
        if text == "19":
            raise endpoint.Refused("http://127.0.0.1:1", "too long")
        asked.append(text)
        return read({"choices": [{"message": {"content": f"답 {text}"}}]})

    monkeypatch.setattr(endpoint, "post_json", post)
    config, texts = JudgeConfig("http://127.0.0.1:1/v1", "m"), [str(i) for i in range(20)]
    replies = Replies(config, file)
    assert replies.all(texts[:3])["2"] == "답 2" and len(file.read_text().splitlines()) == 3
    assert replies.all(texts)["19"] == "" and len(file.read_text().splitlines()) == 19
    assert Replies(config, file).all(texts[:19])["18"] == "답 18" and len(asked) == 19


def test_lines_of_a_run_are_in_the_bucket_at_each_flush_and_resumed(root):
    file = root / "metrics.jsonl"
    writer = JsonLines(file, 0)
    for step in (1, 2):
        writer.write({"step": step})
    writer.flush()
    writer.write({"step": 3})
    assert [json.loads(line)["step"] for line in file.read_text().splitlines()] == [1, 2]
    again = JsonLines(file, 1)  # as on another host, after a checkpoint at step 1
    again.write({"step": 2, "again": 1})
    again.close()
    assert [json.loads(line) for line in file.read_text().splitlines()] == [{"step": 1}, {"step": 2, "again": 1}]
    writer.close()
