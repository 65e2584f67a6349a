"""Verbs on models: run, import, generate, chat."""

import argparse
import json
import os
import pathlib
import sys
import warnings
from typing import Any

from kanana_jax.cli.export import tell_differences
from kanana_jax.cli.verbs import AddVerb, place
from kanana_jax.errors import ConfigError

_RUN_EXAMPLE = """example:
  kanana run --config configs/tiny.py --workdir runs/tiny
  kanana run --config configs/tiny.py --workdir runs/long --config.stage1.train.tokens=8_000_000
  kanana run --config configs/tiny.py --workdir runs/tiny --dry-run

Run it again and it resumes where it stopped. The config is a file or the name of an installed one (tiny, kanana/chain).
Exit codes: 0 done, 1 failed, 2 bad usage or config, 75 stopped (SIGTERM, pre-emption) after saving."""
CONFIG_HELP = "Python file with get_config(arg), or the name of an installed config"


def add_verbs(verb: AddVerb) -> None:
    """Adds the verbs."""
    run = verb("run", _run, "run a recipe, or resume it", _RUN_EXAMPLE)
    run.add_argument("--config", required=True, metavar="FILE_OR_NAME[:ARG]", help=CONFIG_HELP)
    run.add_argument(
        "--workdir", required=True, type=place, metavar="DIR", help="folder that the run writes to and resumes from"
    )
    run.add_argument(
        "--config.KEY", dest="_", metavar="VALUE", help="change a value of the config, e.g. --config.seed=1"
    )
    run.add_argument(
        "--dry-run", action="store_true", help="check config, mesh, data and memory, show what would run, write nothing"
    )
    run.add_argument(
        "--distributed", action="store_true", help="one of several processes; detected on TPU pods and Slurm"
    )
    run.add_argument(
        "--coordinator", default="", metavar="HOST:PORT", help="address of process 0, if not auto-detected"
    )
    run.add_argument("--num-processes", type=int, default=-1, metavar="N", help="processes, with --coordinator")
    run.add_argument("--process-id", type=int, default=-1, metavar="I", help="this process, from 0, with --coordinator")
    run.add_argument("--join-timeout", type=int, default=300, metavar="S", help="seconds to wait for all processes")

    importer = verb(
        "import",
        _import,
        "convert a Hugging Face folder to a model folder with model.json, or merge a PEFT adapter into its base",
        "example:\n  kanana import Llama-3.2-1B models/llama-1b\n"
        "  kanana import my-adapter models/llama-1b-ko --base Llama-3.2-1B",
    )
    importer.add_argument("source", type=place, metavar="HF_DIR", help="Hugging Face folder, or a PEFT LoRA folder")
    importer.add_argument("destination", type=place, metavar="OUT", help="new folder")
    importer.add_argument("--base", default="", metavar="MODEL", help="base of an adapter (default: as it names it)")

    for name, action, summary in (
        ("generate", _generate, "continue a prompt"),
        ("chat", _chat, "talk to a model, turn by turn"),
    ):
        sub = verb(
            name,
            action,
            summary,
            f"example:\n  kanana {name} runs/tiny/stage2"
            + (' --prompt "한빛시는" --max-new-tokens 60' if name == "generate" else ""),
        )
        sub.add_argument("model", metavar="MODEL", help="model, stage or Hugging Face folder")
        if name == "generate":
            sub.add_argument(
                "--prompt", required=True, action="append", metavar="TEXT", help="text to continue; may be repeated"
            )
            sub.add_argument(
                "--add-bos",
                action=argparse.BooleanOptionalAction,
                help="put BOS before the prompt, or not; default: as the model's tokenizer does",
            )
        else:
            sub.add_argument("--system", default="", metavar="TEXT", help="system message")
            sub.add_argument(
                "--tools", type=place, metavar="FILE.json", help="JSON schemas of functions that the model may call"
            )
            sub.add_argument(
                "--strip-thinking", action="store_true", help="hide <think>…</think>, and keep it out of the history"
            )
        sub.add_argument("--max-new-tokens", type=int, default=128, metavar="N", help="longest answer, in tokens")
        sub.add_argument("--temperature", type=float, default=0.7, metavar="T", help="sampling temperature; 0: greedy")
        sub.add_argument("--top-k", type=int, default=0, metavar="K", help="sample among the K best tokens; 0: all")
        sub.add_argument("--top-p", type=float, default=0.9, metavar="P", help="sample among the best tokens of mass P")
        sub.add_argument("--seed", type=int, default=0, metavar="S", help="seed of sampling")
        sub.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="dtype of the computation")


def _run(options: argparse.Namespace, overrides: list[str], command: list[str]) -> int | None:
    if options.dry_run:
        return _dry_run(options, overrides)
    from kanana_jax import config as config_lib
    from kanana_jax.parallel import heartbeat

    heartbeat.start()
    config = config_lib.read_config_file(options.config)
    from kanana_jax.parallel import line, multihost
    from kanana_jax.recipe import config as recipe_config
    from kanana_jax.recipe import run as recipe
    from kanana_jax.training.preemption import Preempted

    recipe_config.override(config, overrides)
    recipe.parse(config)  # a bad config is refused before anything is started
    _start_jax(options.workdir)
    if options.distributed or options.coordinator:
        multihost.start(
            multihost.ProcessConfig(
                options.coordinator,
                options.num_processes,
                options.process_id,
                options.join_timeout,
                line.secret_of(os.environ),
            )
        )
    try:
        recipe.run(config, options.workdir, command)
    except Preempted:  # all leave together
        raise
    except BaseException as error:
        multihost.leave(getattr(error, "exit_code", 130 if isinstance(error, KeyboardInterrupt) else 1))
        raise
    print(f"{options.workdir / 'report.html'}")
    return None


def _dry_run(options: argparse.Namespace, overrides: list[str]) -> int:
    from kanana_jax import config as config_lib

    config = config_lib.read_config_file(options.config)
    _start_jax(None)
    from kanana_jax.cli import dry_run, process

    made = dry_run.check(config, overrides, options.config, options.workdir)
    print("\n".join(made.lines))
    for sentence in made.problems:
        process.say(sentence)
    if made.problems:
        return ConfigError.exit_code
    print("nothing was written; the same command without --dry-run runs it")
    return 0


def _start_jax(workdir: pathlib.Path | None) -> None:
    """Compiled programs are kept, so that a second start does not compile again."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import jax

    from kanana_jax.files import is_remote, programs_folder

    # Programs that cannot be cached are compiled again; the run itself reports a full disk.
    warnings.filterwarnings("ignore", message="Error (reading|writing) persistent compilation cache")
    if workdir is not None:
        compiled = programs_folder() if is_remote(workdir) else workdir / "compiled"
        jax.config.update("jax_compilation_cache_dir", str(compiled.absolute()))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def _import(options: argparse.Namespace, overrides: list[str], command: list[str]) -> None:
    from kanana_jax.files import locked
    from kanana_jax.interop import model_folder

    if (options.source / "adapter_config.json").is_file():
        _import_adapter(options)
    elif options.base:
        raise ConfigError(f"--base is for LoRA adapters: {options.source} has no adapter_config.json")
    else:
        with locked(options.destination, folder=False):
            model_folder.transfer(options.source, options.destination, keep_card=True)
    print(options.destination)


def _import_adapter(options: argparse.Namespace) -> None:
    from kanana_jax.files import locked
    from kanana_jax.interop import peft

    with locked(options.destination, folder=False):
        tell_differences(*peft.merge_folder(options.source, options.destination, options.base))


def _generate(options: argparse.Namespace, overrides: list[str], command: list[str]) -> None:
    from kanana_jax.inference.session import Session

    sampling = _sampling(options)  # a bad option is reported before a model is loaded
    session = Session.load(options.model, options.dtype, add_bos=options.add_bos)
    for text in session.continue_texts(options.prompt, **sampling):
        print(text)


def _chat(options: argparse.Namespace, overrides: list[str], command: list[str]) -> None:
    from kanana_jax.inference.session import Session

    sampling, tools = _sampling(options), _tools(options.tools)
    session = Session.load(options.model, options.dtype)
    session.tokenizer.chat.template(bool(tools))  # a model without one is reported before the first prompt
    messages: list[dict[str, Any]] = [{"role": "system", "content": options.system}] if options.system else []
    how: dict[str, Any] = {**sampling, "tools": tools, "strip_thinking": options.strip_thinking}
    while True:
        try:
            line = input("you> " if sys.stdin.isatty() else "")
        except EOFError:
            return
        if not line.strip():
            continue
        messages.append({"role": "user", "content": line})
        answer = session.answer(messages, **how, show=lambda part: print(part, end="", flush=True))
        print()
        messages.append({"role": "assistant", "content": answer})


def _tools(file: pathlib.Path | None) -> list[dict[str, Any]] | None:
    """The list in a JSON file."""
    if file is None:
        return None
    try:
        found = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"--tools {file} cannot be read ({error}): name a JSON file") from error
    if not isinstance(found, list) or not all(isinstance(tool, dict) for tool in found):
        raise ConfigError(f"--tools {file} must contain a list of JSON schemas of functions")
    return found


def _sampling(options: argparse.Namespace) -> dict[str, Any]:
    from kanana_jax.inference.sampling import SamplingConfig

    if options.max_new_tokens < 0:
        raise ConfigError(f"--max-new-tokens must be at least 0, not {options.max_new_tokens}")
    if not 0 <= options.seed < 2**32:
        raise ConfigError(f"--seed must be between 0 and 2**32 - 1, not {options.seed}")
    try:
        sampling = SamplingConfig(options.temperature, options.top_k, options.top_p)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return {"max_new_tokens": options.max_new_tokens, "sampling": sampling, "seed": options.seed}
