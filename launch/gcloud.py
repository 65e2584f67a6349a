"""The exact `gcloud` commands of a run on Cloud TPU VMs, as pure functions from a `Job` to argument lists."""

import dataclasses
import re
import shlex
from collections.abc import Sequence

from kanana_jax.errors import ConfigError

# Type of an accelerator → chip, runtime image, and whether its number counts TensorCores (two a chip) or chips.
# Cloud TPU documentation: "TPU software versions" and the page of each version.
TYPES = {
    "v4": ("v4", "tpu-ubuntu2204-base", 2),
    "v5litepod": ("v5e", "v2-alpha-tpuv5-lite", 1),
    "v5p": ("v5p", "v2-alpha-tpuv5", 2),
    "v6e": ("v6e", "v2-alpha-tpuv6e", 1),
}
NAME = re.compile(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?")
HOME = '"$HOME"/kanana'
SECRET = '"$HOME"/kanana.secret'
MOUNT = "/mnt/kanana"
PYTHON = "3.12"
SCOPES = ("devstorage.read_write", "logging.write")
GCSFUSE = "3.0.0"
# Google's own package repository: apt checks the packages' digests against its signature.
APT = "https://packages.cloud.google.com/apt"
KEYRING = "/usr/share/keyrings/cloud.google.asc"


@dataclasses.dataclass(frozen=True)
class Job:
    """A run on TPUs.

    Attributes:
      name: of the queued resource, and of its nodes.
      project, zone: empty: gcloud's own setting.
      type: accelerator, e.g. `v5p-128`.
      bucket: Cloud Storage, without `gs://`.
      workdir: folder in the bucket.
      config: `FILE[:ARG]` in the repository, or the name of one below `configs/`.
      overrides: further arguments of `kanana run`.
      revision: of the code, from git.
      capacity: `spot`, `reserved` or `on-demand`.
      slices: TPU slices joined by the data-centre network.
      timeout, stall_timeout, setup_timeout: see `launch/worker.py`.
      mounts: the bucket is mounted on every host at /mnt/kanana, by gcsfuse; else it is read and written as `gs://`.
    """

    name: str
    project: str
    zone: str
    type: str
    bucket: str
    workdir: str
    config: str
    overrides: tuple[str, ...] = ()
    revision: str = ""
    capacity: str = "on-demand"
    slices: int = 1
    timeout: float = 60.0
    stall_timeout: float = 1800.0
    setup_timeout: float = 14400.0
    mounts: bool = False

    def __post_init__(self):
        if not NAME.fullmatch(self.name):
            raise ConfigError(f"--name '{self.name}' must be lower-case letters, digits and '-', 40 at most")
        kind, _, count = self.type.partition("-")
        if kind in ("v2", "v3"):
            raise ConfigError(f"--type '{self.type}': TPU v2 and v3 are not supported: use one of {', '.join(TYPES)}")
        if kind not in TYPES or not count.isdigit():
            raise ConfigError(f"--type '{self.type}' must be one of {', '.join(TYPES)} with a size, such as v5p-128")
        if self.slices < 1:
            raise ConfigError("--slices must be at least 1")

    @property
    def chip(self) -> str:
        return TYPES[self.type.partition("-")[0]][0]

    @property
    def chips(self) -> int:
        """State of all slices."""
        kind, _, count = self.type.partition("-")
        return int(count) // TYPES[kind][2] * self.slices

    @property
    def place(self) -> str:
        """The workdir as the hosts see it."""
        return f"{MOUNT}/{self.workdir}" if self.mounts else f"gs://{self.bucket}/{self.workdir}"

    @property
    def archive(self) -> str:
        return f"gs://{self.bucket}/code/{self.revision}.tar.gz"

    @property
    def where(self) -> list[str]:
        given = (("--project", self.project), ("--zone", self.zone))
        return [f"{flag}={value}" for flag, value in given if value]


_TPUS = ["gcloud", "compute", "tpus"]


def create(job: Job) -> list[str]:
    """Asks for the TPUs; they come when there are some."""
    nodes = (
        [f"--node-id={job.name}"] if job.slices == 1 else [f"--node-count={job.slices}", f"--node-prefix={job.name}"]
    )
    capacity = [] if job.capacity == "on-demand" else [f"--{job.capacity}"]
    return [
        *(*_TPUS, "queued-resources", "create", job.name, *job.where, *nodes),
        f"--accelerator-type={job.type}",
        f"--runtime-version={TYPES[job.type.partition('-')[0]][1]}",
        # The hosts write to the bucket, and to nothing else, as the project's service account: what they run on is text
        # and untrusted code, and any process may ask the machine for its token.
        f"--scopes={','.join(f'https://www.googleapis.com/auth/{scope}' for scope in SCOPES)}",
        *capacity,
    ]


def describe(job: Job) -> list[str]:
    """Prints the state of the queued resource, as WAITING_FOR_RESOURCES or ACTIVE."""
    return [*_TPUS, "queued-resources", "describe", job.name, *job.where, "--format=value(state.state)"]


def delete(job: Job) -> list[str]:
    """Gives the TPUs back, whatever runs on them."""
    return [*_TPUS, "queued-resources", "delete", job.name, *job.where, "--force", "--quiet"]


def ssh(job: Job, command: str, everywhere: bool = True) -> list[str]:
    """Runs a shell command on all hosts of all slices, or on the first alone."""
    which = "all" if everywhere else "0"
    return [
        *(*_TPUS, "queued-resources", "ssh", job.name, *job.where),
        *(f"--node={which}", f"--worker={which}", "--quiet", f"--command={command}"),
    ]


def pack(job: Job, file: str) -> list[str]:
    """The committed code of the revision as an archive; what is not committed does not run."""
    return ["git", "archive", "--format=tar.gz", f"--output={file}", job.revision]


def upload(job: Job, file: str) -> list[str]:
    return ["gcloud", "storage", "cp", file, job.archive, *([f"--project={job.project}"] if job.project else [])]


def look_for(address: str) -> list[str]:
    """Lists a file or folder of a bucket; fails where there is none."""
    return ["gcloud", "storage", "ls", address]


def setup(job: Job) -> str:
    """Shell: mounts the bucket, unpacks the code, installs it with a Python of its own (the image's is old)."""
    bucket = shlex.quote(job.bucket)
    mount = [
        f"(command -v gcsfuse >/dev/null || ({_gcsfuse()}))",
        f'sudo mkdir -p {MOUNT} && sudo chown "$USER" {MOUNT}',
        f"(mountpoint -q {MOUNT} || gcsfuse --implicit-dirs {bucket} {MOUNT})",
    ]
    extras = "tpu" if job.mounts else "tpu,cloud"
    return " && ".join(
        [
            "set -e",
            *(mount if job.mounts else ()),
            f"mkdir -p {HOME}/code",
            f"gcloud storage cp {shlex.quote(job.archive)} {HOME}/code.tar.gz",
            f"tar -xzf {HOME}/code.tar.gz -C {HOME}/code",
            f"cd {HOME}/code",
            "python3 -m pip install -q --user --require-hashes -r launch/uv.txt",
            f'(test -x {HOME}/venv/bin/python || "$HOME"/.local/bin/uv venv -q --python {PYTHON} {HOME}/venv)',
            f'"$HOME"/.local/bin/uv pip install -q --python {HOME}/venv/bin/python -c constraints.txt -e ".[{extras}]"',
        ]
    )


def _gcsfuse() -> str:
    """Shell: installs the driver of the bucket from the signed repository."""
    # The image's own updates may hold the package lock for a while after boot.
    apt = "sudo apt-get -o DPkg::Lock::Timeout=300"
    return (
        f"curl -sSfo /tmp/cloud.google.asc {APT}/doc/apt-key.gpg "
        f"&& sudo install -m 644 /tmp/cloud.google.asc {KEYRING} "
        f'&& echo "deb [signed-by={KEYRING}] {APT} gcsfuse-$(lsb_release -cs) main" '
        "| sudo tee /etc/apt/sources.list.d/gcsfuse.list >/dev/null "
        f"&& {apt} update -q && {apt} install -yq gcsfuse={GCSFUSE}"
    )


def hand_over(job: Job, file: str) -> list[str]:
    """Gives all hosts what their watchers know each other by, as a file that only its owner may read."""
    to = f"{job.name}:kanana.secret"
    return [*_TPUS, "queued-resources", "scp", file, to, *job.where, "--node=all", "--worker=all", "--quiet"]


def start(job: Job) -> str:
    """Shell: starts the worker, which lives on when the connection ends; no command line shows the secret."""
    run = ["--config", job.config, "--workdir", job.place, *job.overrides]
    worker = [
        *("launch/worker.py", "--chip", job.chip, "--timeout", f"{job.timeout:g}"),
        *("--stall-timeout", f"{job.stall_timeout:g}", "--setup-timeout", f"{job.setup_timeout:g}"),
        *("--keep-log", f"{job.place}/logs"),
    ]
    return (
        f"cd {HOME}/code && rm -f {HOME}/result && "
        f'(KANANA_SECRET="$(cat {SECRET})" '
        f"setsid nohup {HOME}/venv/bin/python {shlex.join(worker)} --log {HOME}/worker.log --result {HOME}/result "
        f"-- {shlex.join(run)} >/dev/null 2>&1 </dev/null &)"
    )


def result() -> str:
    """Shell: prints `exit CODE` of the ended worker, `running`, or `none`."""
    return (
        f'if test -f {HOME}/result; then echo "exit $(cat {HOME}/result)"; '
        "elif pgrep -f '[l]aunch/worker.py' >/dev/null; then echo running; else echo none; fi"
    )


def status() -> str:
    """Shell: `result`, and the last line that training has logged: stage, step, loss, tokens per second, ETA."""
    return f"{result()}; grep -aE ' step [0-9]+/[0-9]+ ' {HOME}/worker.log 2>/dev/null | tail -n 1"


def stop() -> str:
    """Shell: lets the run save and end."""
    return "pkill -TERM -f '[l]aunch/worker.py' || true"


def logs(lines: int) -> str:
    """Shell: the end of a host's log."""
    return f"tail -n {lines} {HOME}/worker.log"


def arguments(job_overrides: Sequence[str], slices: int) -> tuple[str, ...]:
    """Arguments of `kanana run` for that many slices: the data axis goes over the network between them."""
    given = tuple(job_overrides)
    if slices == 1:
        return given
    named = [key for key in ("--config.mesh.slices", "--config.mesh.data") if not any(g.startswith(key) for g in given)]
    return (*(f"{key}={slices}" for key in named), *given)
