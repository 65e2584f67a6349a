"""The exact commands against golden files; supervision through its states with a scripted `gcloud`."""

import json
import os
import re
import shutil
import stat
import subprocess
import sys

import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT))
from kanana_jax.launch import gcloud, supervise, tpu  # noqa: E402
from kanana_jax.launch.gcloud import Job  # noqa: E402
from kanana_jax.launch.supervise import Policy, Seen, decide  # noqa: E402

GOLDEN = ROOT / "tests/golden/launch"
REVISION = "0123456789abcdef0123456789abcdef01234567"
RUN = [
    *("--config", "configs/kanana/essence_8b.py:/mnt/kanana/documents", "--type", "v5p-128", "--zone", "us-east5-a"),
    *("--bucket", "gs://my-bucket", "--workdir", "runs/essence_8b", "--name", "essence"),
]
SMALL = ["--config", "tiny", "--type", "v5litepod-1", "--bucket", "my-bucket", "--workdir", "gs://my-bucket/runs/tiny"]
# Prints the next of its scripted answers for `describe` and for the question how the run is; notes every call.
GCLOUD = """#!{python} -S
import json, pathlib, sys
folder = pathlib.Path({folder!r})
with (folder / "calls").open("a") as calls:
    calls.write(json.dumps(sys.argv[1:]) + "\\n")
asked = " ".join(sys.argv[1:])
if " scp " in asked:
    file = pathlib.Path(sys.argv[5])
    with (folder / "handed").open("a") as handed:
        handed.write(f"{{file.stat().st_mode & 0o777:o}} {{file.read_text()}}\\n")
if " ls " in asked and "/missing" in asked:
    sys.exit("ERROR: (gcloud.storage.ls) One or more URLs matched no objects.")
name = "states" if " describe " in asked else "runs" if "echo running" in asked else ""
if name:
    answers = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps(answers[1:]))
    if answers[0] == "NOT_FOUND":
        sys.exit("ERROR: (gcloud) NOT_FOUND: Resource was not found")
    if answers[0] == "":
        sys.exit("ERROR: (gcloud) ssh: connect: timed out")
    print(answers[0])
"""
GIT = """#!{python} -S
import sys
print("{revision}" if "rev-parse" in sys.argv else "", end="")
"""


@pytest.fixture
def tools(tmp_path):
    """A PATH on which `gcloud` plays a script and `git` knows one revision."""
    folder = tmp_path / "tools"
    folder.mkdir()
    for name, text in (("gcloud", GCLOUD), ("git", GIT)):
        file = folder / name
        file.write_text(text.format(python=sys.executable, folder=str(folder), revision=REVISION))
        file.chmod(file.stat().st_mode | stat.S_IXUSR)
    return folder


SCRIPT = (str(ROOT / "launch/tpu.py"),)
VERB = ("-m", "kanana_jax", "launch")


def _tpu(tools, *arguments, command=SCRIPT):
    return subprocess.run(
        [sys.executable, *command, *arguments],
        env=os.environ | {"PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
    )


@pytest.fixture
def here(tools, monkeypatch, capfd):
    """Exit code, output and errors of the script's `main` in this process."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    return lambda *arguments: (tpu.main([*arguments]), *capfd.readouterr())


@pytest.mark.parametrize(
    "name, arguments",
    [
        ("supervise_spot_two_slices", ["supervise", *RUN, "--spot", "--slices", "2", "--config.seed=1"]),
        ("supervise_without_mount", ["supervise", *SMALL, "--setup-timeout", "600"]),
        ("up_reserved", ["up", "--type", "v6e-256", "--reserved", "--project", "p", "--name", "big"]),
        ("run", ["run", *RUN, "--timeout", "30"]),
        ("status", ["status", "--name", "essence"]),
        ("logs", ["logs", "--name", "essence", "--lines", "7"]),
        ("down", ["down", "--name", "essence", "--zone", "us-east5-a"]),
    ],
)
def test_dry_run_prints_the_exact_commands(here, tools, name, arguments):
    code, shown, errors = here(*arguments, "--dry-run")
    assert code == 0, errors
    golden = GOLDEN / f"{name}.txt"
    if os.environ.get("KANANA_WRITE_GOLDEN"):
        golden.write_text(shown)
    assert shown == golden.read_text()
    assert not (tools / "calls").exists()


@pytest.mark.parametrize(
    "arguments, told",
    [
        (["up", "--type", "h100-8"], "--type 'h100-8'"),
        (["up", "--type", "v3-8"], "v2 and v3 are not supported"),
        (["run", *RUN, "--config", "configs/kanana/essence_8b.py:/home/me/documents"], "which the hosts do not have"),
        (["run", "--type", "v5p-8"], "needs --bucket"),
        (["run", *RUN, "--config", "configs/none.py"], "configs/none.py"),
        (["run", *RUN, "--workdir", "/data/run"], "a folder in --bucket"),
        (["up", "--type", "v5p-8", "--name", "Big_One"], "--name 'Big_One'"),
        (["up", "--type", "v5p-8", "--preemptible=1"], "--preemptible=1"),
    ],
)
def test_bad_usage_is_one_sentence(here, tools, arguments, told):
    code, _, errors = here(*arguments)
    assert code == 2 and errors.startswith("tpu: ") and told in errors, errors
    assert errors.count("\n") == 1 and not (tools / "calls").exists()


def test_the_verb_of_kanana_is_the_script(tools):
    """It gets all arguments as they are, its help included, and passes the exit code through."""
    arguments = ["supervise", *RUN, "--spot", "--slices", "2", "--config.seed=1", "--dry-run"]
    done = _tpu(tools, *arguments, command=VERB)
    assert (done.returncode, done.stderr) == (0, _tpu(tools, *arguments).stderr)
    assert done.stdout == (GOLDEN / "supervise_spot_two_slices.txt").read_text()
    for wrong in (["up", "--type", "v5p-8", "--preemptible=1"], ["logs", "--lines", "x"], []):
        assert _tpu(tools, *wrong, command=VERB).returncode == 2
    helped = _tpu(tools, "up", "--help", command=VERB)
    assert helped.returncode == 0 and helped.stdout.startswith("usage: kanana launch ")
    assert "kanana launch supervise --config" in helped.stdout and "--slices N" in helped.stdout


def test_missing_documents_are_named_before_anything_is_asked_for(tools):
    arguments = [*RUN, "--config", "configs/kanana/essence_8b.py:gs://my-bucket/missing"]
    done = _tpu(tools, "supervise", *arguments)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    for name in ("ko_web", "en_web", "academic", "code", "encyclopedia", "instruction", "tokenizer"):
        assert f"gs://my-bucket/missing/{name}" in done.stderr
    calls = [json.loads(line) for line in (tools / "calls").read_text().splitlines()]
    assert {tuple(call[:2]) for call in calls} == {("storage", "ls")}


def test_an_installed_package_packs_nobody_elses_repository(tools, tmp_path):
    """Its folder may lie in a repository of the user's, whose code is not what should run."""
    installed = tmp_path / "site-packages"
    shutil.copytree(ROOT / "kanana_jax", installed / "kanana_jax", ignore=shutil.ignore_patterns("__pycache__"))
    for folder in ("launch", "configs"):
        shutil.copytree(ROOT / folder, installed / "kanana_jax" / folder, ignore=shutil.ignore_patterns("__pycache__"))
    code = (
        f"import sys; sys.path.insert(0, {str(installed)!r}); from kanana_jax.launch import tpu; sys.exit(tpu.main())"
    )
    done = _tpu(tools, "run", *SMALL, "--dry-run", command=("-c", code))
    assert done.returncode == 1 and "is an installed package: run `git clone" in done.stderr, done.stderr


def test_an_override_of_a_place_is_looked_for(tools):
    done = _tpu(tools, "supervise", *SMALL, "--config.tokenizer.path=gs://my-bucket/missing/tokenizer")
    assert done.returncode == 1 and "gs://my-bucket/missing/tokenizer, which is not there" in done.stderr


def test_status_shows_step_loss_and_time_left(tmp_path):
    (tmp_path / "kanana").mkdir()
    (tmp_path / "kanana/result").write_text("0\n")
    told = "stage1 step 20/391  loss 6.6700  1,374 tok/s  MFU 6%  wait 0.0%  ETA 0:02"
    (tmp_path / "kanana/worker.log").write_text(f"worker: pid 1\nstage1 step 10/391  loss 6.9\n{told}\nother\n")
    shell = ["sh", "-c", gcloud.status()]
    done = subprocess.run(shell, env=os.environ | {"HOME": str(tmp_path)}, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["exit 0", told]


def _drill(tools, states, runs, *more):
    (tools / "states").write_text(json.dumps(states))
    (tools / "runs").write_text(json.dumps(runs))
    done = _tpu(tools, "supervise", *RUN, "--spot", "--poll", "0", "--backoff", "0.01", *more)
    calls = [json.loads(line) for line in (tools / "calls").read_text().splitlines()]
    acts = []
    for call in calls:
        text = " ".join(call)
        for act, mark in (("create", " create "), ("delete", " delete "), ("start", "setsid nohup")):
            acts += [act] if mark in text else []
    assert json.loads((tools / "states").read_text()) == []
    return done, acts, calls


def test_waiting_active_preempted_recreated_crashed_saved_done(tools):
    active = ["ACTIVE"]
    states = ["NOT_FOUND", "WAITING_FOR_RESOURCES", "PROVISIONING", *active * 2, "SUSPENDING", "SUSPENDED"]
    states += ["WAITING_FOR_RESOURCES", *active * 8]
    runs = ["none", "running", "none", "running", "", "running", "exit 1", "running", "exit 75", "exit 0"]
    done, acts, calls = _drill(tools, states, runs)
    assert done.returncode == 0, done.stdout + done.stderr
    assert acts == ["create", "start", "delete", "create", "start", "start", "start", "delete"]
    starts = [call for call in calls if "setsid nohup" in " ".join(call)]
    assert len({json.dumps(call) for call in starts}) == 1 and "/mnt/kanana/runs/essence_8b" in starts[0][-1]
    said = [line.split(" ", 1)[1] for line in done.stdout.splitlines() if re.match(r"\d\d:", line)]
    for earlier, later in zip(EXPECTED, EXPECTED[1:]):
        assert said.index(earlier) < said.index(later), said


EXPECTED = [
    "create: there are no TPUs",
    "wait: WAITING_FOR_RESOURCES",
    "wait: PROVISIONING",
    "start: the TPUs are there",
    "wait: running",
    "wait: SUSPENDING",
    "recreate: pre-empted",
    "wait: the hosts do not answer",
    "start: crashed with exit code 1",
    "crash 1, 5 are borne: waiting 0.01 s",
    "start: stopped on request and saved",
    "done: the run is finished",
]


def test_each_start_hands_over_a_secret_that_no_command_line_shows(tools):
    _, acts, calls = _drill(tools, ["ACTIVE"] * 3, ["none", "exit 1", "exit 0"], "--keep")
    assert acts == ["start"] * 2
    handed = (tools / "handed").read_text(encoding="utf-8").split("\n")[:-1]
    assert len(set(handed)) == 2 and all(re.fullmatch("600 [0-9a-f]{64}", line) for line in handed)
    assert not [call for call in calls for line in handed if line.split()[1] in " ".join(call)]
    assert 'KANANA_SECRET="$(cat "$HOME"/kanana.secret)" setsid' in " ".join(" ".join(call) for call in calls)


def test_crashes_end_and_a_bad_config_ends_at_once(tools):
    done, acts, _ = _drill(tools, ["ACTIVE"] * 4, ["none", "exit 1", "exit 1", "exit 1"], "--retries", "2")
    assert done.returncode == 1 and acts == ["start"] * 3 + ["delete"] and "crash 3 in a row" in done.stdout
    (tools / "calls").unlink()
    done, acts, _ = _drill(tools, ["ACTIVE"] * 2, ["none", "exit 2"], "--keep")
    assert done.returncode == 2 and acts == ["start"]


class _World:
    """Answers of a script, a clock that sleeping moves, and what was done."""

    def __init__(self, *looks):
        self.looks, self.now, self.slept, self.done = list(looks), 0.0, [], []
        self._run = ""

    def call(self, command):
        if "describe" in command:
            state, self._run = self.looks.pop(0)
            return (1, "NOT_FOUND") if not state else (0, f"{state}\n")
        if "ssh" in command:
            return 0, f"{self._run}\n"
        self.done.append(command[4])
        return 0, ""

    def sleep(self, seconds):
        self.now += seconds
        self.slept.append(seconds)

    def supervise(self, policy):
        job = Job("n", "", "", "v5p-8", "b", "w", "c")
        return supervise.supervise(
            job,
            policy,
            self.call,
            lambda: self.done.append("start"),
            lambda line: None,
            sleep=self.sleep,
            clock=lambda: self.now,
        )


def test_pauses_double_up_to_a_bound():
    world = _World(("ACTIVE", "none"), *[("ACTIVE", "exit 1")] * 6)
    assert world.supervise(Policy(retries=5, backoff=30, longest=200, poll=1)) == 1
    assert [s for s in world.slept if s != 1] == [30, 60, 120, 200, 200]


def test_a_crash_after_a_healthy_run_is_the_first_again_and_preemptions_are_free():
    ran = [("ACTIVE", "running")] * 10
    world = _World(("ACTIVE", "none"), *[*ran, ("ACTIVE", "exit 1")] * 3, ("ACTIVE", "exit 0"))
    assert world.supervise(Policy(retries=1, backoff=7, healthy=50, poll=10)) == 0
    assert [s for s in world.slept if s != 10] == [7, 7, 7]
    lost = [("SUSPENDED", ""), ("ACTIVE", "none")]
    world = _World(*lost * 8, ("ACTIVE", "exit 0"))
    assert world.supervise(Policy(retries=0, poll=10)) == 0 and world.done.count("create") == 8


def test_a_worker_that_is_gone_without_a_result_is_a_crash():
    world = _World(*[("ACTIVE", "none")] * 3)
    assert world.supervise(Policy(retries=1, poll=10)) == 1 and world.done.count("start") == 2


@pytest.mark.parametrize(
    "seen, action",
    [
        (Seen(""), "create"),
        (Seen("CREATING"), "wait"),
        (Seen("DELETING"), "wait"),
        (Seen("FAILED"), "recreate"),
        (Seen("ACTIVE", "", silent=9), "wait"),
        (Seen("ACTIVE", "", silent=10), "recreate"),
        (Seen("SOMETHING_NEW"), "wait"),
    ],
)
def test_decisions(seen, action):
    assert decide(seen, Policy()).action == action
