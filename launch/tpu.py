"""A run on Cloud TPU, by one command from a laptop, for example:

    kanana launch supervise --config configs/kanana/essence_8b.py:gs://my-bucket/documents --type v5p-128 \\
        --zone us-east5-a --bucket my-bucket --workdir runs/essence_8b --spot

up         requests the TPUs (a queued resource) and returns
run        packs the committed code, sets up all hosts and starts the run there; the laptop may then be closed
supervise  both, again after pre-emptions and crashes, until the run is done; then releases the TPUs
status     the state of the TPUs and of the run, with its step, loss and time left
logs       the end of every host's log
down       lets the run save, then releases the TPUs

Before TPUs are requested, the bucket is checked for everything that the config reads. With --dry-run the exact
commands are printed and nothing is done. The laptop needs only git, gcloud and Python: where nothing is installed,
`python launch/tpu.py` is the same command. See docs/launch.md.
"""

import argparse
import importlib.util
import os
import pathlib
import secrets
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

ROOT = pathlib.Path(__file__).resolve().parents[1]
if not __package__:  # run as a script from a clone, where nothing may be installed
    __package__ = "launch"
    for name in ("kanana_jax", "launch"):  # by their place: before the libraries in `sys.path`, a clone would hide them
        found = importlib.util.spec_from_file_location(
            name, ROOT / name / "__init__.py", submodule_search_locations=[str(ROOT / name)]
        )
        assert found is not None and found.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(found)
        found.loader.exec_module(sys.modules[name])

from kanana_jax import REPOSITORY  # noqa: E402
from kanana_jax.errors import ConfigError, UserError  # noqa: E402

from . import gcloud, inputs, supervise  # noqa: E402


def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Runs a verb; returns the exit code.

    Args:
      prog: the command's name in messages about its usage; default: this file's.
    """
    options, rest = _parser(prog).parse_known_args(arguments)
    try:
        return Launcher(_job(options, rest), options).act(options.verb)
    except UserError as error:
        print(f"tpu: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("tpu: interrupted; the TPUs and the run are as they were (see status)", file=sys.stderr)
        return 130


def _parser(prog: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("verb", choices=("up", "run", "supervise", "status", "logs", "down"))
    parser.add_argument("--name", default="kanana", help="name of the TPUs; each runs one run")
    parser.add_argument("--project", default="", help="default: gcloud's")
    parser.add_argument("--zone", default="", help="default: gcloud's")
    parser.add_argument(
        "--type", default="", metavar="TYPE", help="accelerator: v4-8, v5litepod-16, v5p-128, v6e-256 …"
    )
    parser.add_argument("--slices", type=int, default=1, metavar="N", help="TPU slices joined by the network")
    capacity = parser.add_mutually_exclusive_group()
    capacity.add_argument(
        "--spot", dest="capacity", action="store_const", const="spot", help="cheap, but may be pre-empted"
    )
    capacity.add_argument(
        "--reserved", dest="capacity", action="store_const", const="reserved", help="from your reservation"
    )
    parser.set_defaults(capacity="on-demand")
    parser.add_argument("--bucket", default="", help="Cloud Storage bucket of the code, the documents and the workdir")
    parser.add_argument(
        "--config", default="", metavar="FILE_OR_NAME[:ARG]", help="config in this repository; ARG as the hosts see it"
    )
    parser.add_argument(
        "--workdir", default="", metavar="DIR", help="folder in the bucket: runs/x, or gs://BUCKET/runs/x"
    )
    parser.add_argument(
        "--mount",
        action="store_true",
        help="mount the bucket on the hosts at /mnt/kanana by gcsfuse, for what reads no gs:// addresses; also where "
        "the config's ARG names a folder there",
    )
    parser.add_argument("--config.KEY", dest="_", metavar="VALUE", help="change a value of the config")
    parser.add_argument("--revision", default="HEAD", help="git revision of the code")
    parser.add_argument("--timeout", type=float, default=60.0, metavar="S", help="seconds without a sign of a host")
    parser.add_argument(
        "--stall-timeout", type=float, default=1800.0, metavar="S", help="seconds without a finished step"
    )
    parser.add_argument(
        "--setup-timeout", type=float, default=14400.0, metavar="S", help="seconds without progress in preparation"
    )
    policy = supervise.Policy()
    parser.add_argument("--retries", type=int, default=policy.retries, metavar="N", help="consecutive crashes, at most")
    parser.add_argument("--backoff", type=float, default=policy.backoff, metavar="S", help="before the first retry")
    parser.add_argument("--poll", type=float, default=policy.poll, metavar="S", help="seconds between two checks")
    parser.add_argument("--keep", action="store_true", help="supervise: keep the TPUs, and pay for them, at the end")
    parser.add_argument("--lines", type=int, default=50, metavar="N", help="logs: number of lines per host")
    parser.add_argument("--dry-run", action="store_true", help="print the commands only")
    return parser


def _job(options: argparse.Namespace, rest: Sequence[str]) -> gcloud.Job:
    needed = {"up": ("type",), "run": ("type", "bucket", "config", "workdir")}
    needed["supervise"] = needed["run"]
    for name in needed.get(options.verb, ()):
        if not getattr(options, name):
            raise ConfigError(f"'{options.verb}' needs --{name}")
    wrong = [argument for argument in rest if not argument.startswith("--config.") or "=" not in argument]
    if wrong:
        raise ConfigError(f"unknown argument '{wrong[0]}': changes of the config are --config.KEY=VALUE")
    bucket = options.bucket.removeprefix("gs://").rstrip("/")
    workdir = options.workdir.removeprefix(f"gs://{bucket}/").removeprefix(f"{gcloud.MOUNT}/").strip("/")
    if "://" in workdir or options.workdir.startswith("/") and not options.workdir.startswith(gcloud.MOUNT):
        raise ConfigError(f"--workdir '{options.workdir}' must be a folder in --bucket, such as runs/essence_8b")
    file = options.config.partition(":")[0]
    if options.config and not any((ROOT / place).is_file() for place in (file, f"configs/{file}.py")):
        raise ConfigError(f"--config '{file}' is neither a file nor the name of a config in this repository ({ROOT})")
    return gcloud.Job(
        name=options.name,
        project=options.project,
        zone=options.zone,
        type=options.type or "v4-8",  # the other verbs do not look at it
        bucket=bucket,
        workdir=workdir,
        config=options.config,
        overrides=gcloud.arguments(rest, options.slices),
        revision=_revision(options.revision) if options.verb in ("run", "supervise") else "",
        capacity=options.capacity,
        slices=options.slices,
        timeout=options.timeout,
        stall_timeout=options.stall_timeout,
        setup_timeout=options.setup_timeout,
        mounts=options.mount or any(gcloud.MOUNT in text for text in (options.config, options.workdir, *rest)),
    )


def _revision(name: str) -> str:
    if not (ROOT / "setup.py").is_file():  # an installed package, perhaps in somebody else's repository
        raise UserError(
            f"the hosts get the committed code of a clone, and {ROOT} is an installed package: run `git clone "
            f"{REPOSITORY}`, then `kanana launch` of that clone or `python launch/tpu.py` in it"
        )
    code, text = _call(["git", "-C", str(ROOT), "rev-parse", name])
    if code:
        raise UserError(f"there is no git revision '{name}' in {ROOT}: run from a clone, and commit the code to run")
    return text.strip()


class Launcher:
    """Does, or shows, what a verb means."""

    def __init__(self, job: gcloud.Job, options: argparse.Namespace):
        self.job, self.options = job, options

    def act(self, verb: str) -> int:
        job = self.job
        if verb == "supervise":
            return self._supervise()
        if verb == "up":
            self._must(gcloud.create(job))
        elif verb == "run":
            self._check_inputs()
            self._start()
        elif verb == "status":
            self._must(gcloud.describe(job))
            self._must(gcloud.ssh(job, gcloud.status(), everywhere=False))
        elif verb == "logs":
            self._must(gcloud.ssh(job, gcloud.logs(self.options.lines)))
        elif verb == "down":
            self._run(gcloud.ssh(job, gcloud.stop()))
            if not self.options.dry_run:
                self._wait_for_end()
            self._must(gcloud.delete(job))
        return 0

    def _check_inputs(self) -> None:
        """Everything that the config reads is in the bucket, before anything is billed."""
        job = self.job
        try:
            found = inputs.addresses(job.config, job.overrides, job.bucket, ROOT)
        except ConfigError:
            raise
        except UserError as error:
            print(f"tpu: not checked whether the config's documents are in the bucket: {error}", file=sys.stderr)
            return
        if self.options.dry_run:
            for address in found:
                self._run(gcloud.look_for(address))
        else:
            inputs.check(found, _call)

    def _start(self) -> None:
        job = self.job
        self._warn_of_changes()
        with tempfile.TemporaryDirectory() as folder:
            file = "code.tar.gz" if self.options.dry_run else f"{folder}/code.tar.gz"
            self._must(gcloud.pack(job, file))
            self._must(gcloud.upload(job, file))
            secret = "secret" if self.options.dry_run else f"{folder}/secret"
            if not self.options.dry_run:
                with open(os.open(secret, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as out:
                    out.write(secrets.token_hex(32))
            self._must(gcloud.hand_over(job, secret))
        self._must(gcloud.ssh(job, gcloud.setup(job)))
        self._must(gcloud.ssh(job, gcloud.start(job)))

    def _supervise(self) -> int:
        options = self.options
        self._check_inputs()
        policy = supervise.Policy(retries=options.retries, backoff=options.backoff, poll=options.poll)
        if options.dry_run:
            print("# until ACTIVE")
            self._run(gcloud.create(self.job))
            self._run(gcloud.describe(self.job))
            print("# then")
            self._start()
            print(f"# every {policy.poll:g} s, until 'exit 0'; after a pre-emption delete, create and start again")
            self._run(gcloud.describe(self.job))
            self._run(gcloud.ssh(self.job, gcloud.result(), everywhere=False))
            if not options.keep:
                print("# in the end")
                self._run(gcloud.delete(self.job))
            return 0

        def say(line: str) -> None:
            print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)

        return supervise.supervise(self.job, policy, _call, self._start, say, keep=options.keep)

    def _wait_for_end(self) -> None:
        """Up to five minutes for the run to save."""
        for _ in range(30):
            code, text = _call(gcloud.ssh(self.job, gcloud.result(), everywhere=False))
            if code or "running" not in text.split():
                return
            time.sleep(10)

    def _warn_of_changes(self) -> None:
        _, changes = _call(["git", "-C", str(ROOT), "status", "--short"])
        if changes.strip():
            print(f"tpu: {len(changes.splitlines())} changed files are not committed and do not run", file=sys.stderr)

    def _must(self, command: list[str]) -> None:
        code = self._run(command)
        if code:
            raise UserError(f"`{shlex.join(command)[:200]}` failed with exit code {code}; its message is above")

    def _run(self, command: list[str]) -> int:
        if self.options.dry_run:
            print(shlex.join(command))
            return 0
        try:
            return subprocess.run(command, cwd=ROOT).returncode
        except FileNotFoundError as error:
            raise UserError(f"{command[0]} is not installed: see docs/launch.md") from error


def _call(command: list[str]) -> tuple[int, str]:
    try:
        done = subprocess.run(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", errors="replace"
        )
    except FileNotFoundError as error:
        raise UserError(f"{command[0]} is not installed: see docs/launch.md") from error
    return done.returncode, done.stdout


if __name__ == "__main__":
    sys.exit(main())
