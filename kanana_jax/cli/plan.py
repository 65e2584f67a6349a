"""The verb `plan`."""

import argparse
import os

from kanana_jax.cli.models import CONFIG_HELP
from kanana_jax.cli.verbs import AddVerb, place
from kanana_jax.errors import UserError

_ESTIMATE = "estimate"
_EXAMPLE = """examples:
  kanana plan --config configs/kanana/essence_8b.py --topology v5p-128
  kanana plan --config configs/kanana/chain.py --stage nano_2_1b --topology v6e-256 --json plan.json
  kanana plan --config configs/kanana/essence_8b.py --topology v6e-64 --search
  kanana plan --config configs/kanana/essence_8b.py --topology v5p-128 --memory 4,16,64,256
  kanana plan --config configs/adapt.py:MODEL,FOLDER --topology rtx4090-1 --memory

No TPU is needed and nothing is run: the program is compiled for that chip, and counted. Names are Google's: v4 and v5p
count TensorCores (two a chip), v5e and v6e chips. Exit codes: 0 fits, 1 does not fit, 2 bad usage or config."""


def add_verbs(verb: AddVerb) -> None:
    """Adds `plan`."""
    sub = verb("plan", _plan, "estimate the cost of a training stage on a TPU slice, and whether it fits", _EXAMPLE)
    sub.add_argument("--config", required=True, metavar="FILE_OR_NAME[:ARG]", help=CONFIG_HELP)
    sub.add_argument(
        "--topology", required=True, metavar="NAME", help="v5p-128, v6e-256, v5e-16, v4-64; with --memory h100-8 … too"
    )
    sub.add_argument("--slices", type=int, default=0, metavar="N", help="slices joined by the data-centre network")
    sub.add_argument("--stage", default="", metavar="NAME", help="stage to plan; default: the first that trains")
    sub.add_argument("--search", action="store_true", help="try meshes, micro-batches and remat policies")
    sub.add_argument("--tries", type=int, default=12, metavar="N", help="most programs that --search compiles")
    sub.add_argument(
        "--memory",
        nargs="?",
        const=_ESTIMATE,
        default="",
        metavar="N,N",
        help="estimate only the memory, without compiling; with N,N the memory permanently in use on N chips each",
    )
    sub.add_argument("--json", type=place, metavar="FILE", help="also write the plan to this file")
    sub.add_argument("--cache", type=place, metavar="DIR", help="folder of compiled plans (default: the user's cache)")
    sub.add_argument("--no-cache", action="store_true", help="compile again, cache nothing")
    sub.add_argument("--config.KEY", dest="_", metavar="VALUE", help="change a value of the config")


def _plan(options: argparse.Namespace, overrides: list[str], command: list[str]) -> None:
    # The compiler for the chip runs here; a chip that is here is left alone.
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import jax

    from kanana_jax import config as config_lib

    config = config_lib.read_config_file(options.config)
    from kanana_jax.files import write_json
    from kanana_jax.plan import cache as plan_cache
    from kanana_jax.plan import fit as plan_fit
    from kanana_jax.plan import memory as plan_memory
    from kanana_jax.plan import plan
    from kanana_jax.plan import request as plan_request
    from kanana_jax.plan import search as plan_search
    from kanana_jax.plan import show as plan_show
    from kanana_jax.recipe.config import override, parse

    override(config, overrides)
    cache = None if options.no_cache else options.cache or plan_cache.default_folder()
    wanted = plan_request.request(*parse(config), options.stage, options.topology, options.slices, cache)
    # CPU devices replace the chips whose compiler is not asked; a number that someone has set stays.
    if options.memory and "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        jax.config.update("jax_num_cpu_devices", max(wanted.target.chips, 8))
    if options.memory == _ESTIMATE:
        found = plan_fit.fit(wanted)
        words, refusal = plan_fit.text(found), f"stage '{found['stage']}' does not fit {options.topology}"
        fits = found["fits"]
    elif options.memory:
        found = plan_memory.resident(wanted, plan_memory.sizes(options.memory))
        words, refusal, fits = plan_memory.text(found), "", True
    elif options.search:
        found = plan_search.search(wanted, options.tries)
        words, fits = plan_search.text(found), bool(found["pareto"])
        refusal = f"nothing that was tried fits {options.topology}: take a larger slice"
    else:
        found = plan.plan(wanted)
        words, fits = plan_show.text(found), found["fits"]
        advice = "" if fits else found["advice"]["sentence"]
        refusal = f"stage '{found['stage']}' does not fit {options.topology}: {advice}"
    print(words)
    if options.json:
        write_json(options.json, found)
    if not fits:
        raise UserError(refusal)
