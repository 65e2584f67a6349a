"""A few of the kills of `benchmarks/kill_test.py`, which drills every verb that writes: a hundred by default."""

import dataclasses
import importlib.util
import os
import random

import pytest
from conftest import ROOT

spec = importlib.util.spec_from_file_location("kill_test", ROOT / "benchmarks/kill_test.py")
kill_test = importlib.util.module_from_spec(spec)
# A dataclass looks for its module there.
import sys  # noqa: E402

sys.modules["kill_test"] = kill_test
spec.loader.exec_module(kill_test)

KILLS = int(os.environ.get("KANANA_KILLS", "2"))


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kills")
    kill_test.prepare(folder, 200)
    return folder


# A filter that is stopped at any chunk: tests/data/filters/test_job.py.
@pytest.mark.parametrize("name", [pytest.param("filter", marks=pytest.mark.more), "dedup"])
def test_killed_at_random_moments_the_bytes_are_the_same(name, base):
    job = next(job for job in kill_test.JOBS if job.name == name)
    job = dataclasses.replace(job, a_pass=KILLS)
    seconds = kill_test.undisturbed(job, base)
    found = kill_test.one_pass(
        job, base, seconds, random.Random(f"{name} {os.environ.get('KANANA_KILL_SEED', '0')}"), KILLS
    )
    assert found.get("differ") == [], found
    assert len(list((base / f"{name}.disturbed").iterdir())) == len(list((base / f"{name}.reference").iterdir()))


def test_a_difference_is_seen(tmp_path):
    """The comparison passes over times and the folder's own path, and over nothing else."""
    a, b = tmp_path / "run.reference", tmp_path / "run.disturbed"
    for folder, seconds in ((a, 1.5), (b, 2.5)):
        (folder / "stage").mkdir(parents=True)
        (folder / "stage/metrics.jsonl").write_text(f'{{"loss": 1.0, "tokens_per_s": {seconds}}}\n')
        (folder / "stage/model.json").write_text(f'{{"parent": "{folder}/x"}}')
        (folder / "report.html").write_text(str(seconds))
    assert kill_test.compare(a, b) == []
    (b / "stage/metrics.jsonl").write_text('{"loss": 1.1, "tokens_per_s": 1.5}\n')
    (b / "more.npz").touch()
    assert kill_test.compare(a, b) == ["more.npz", "stage/metrics.jsonl"]
