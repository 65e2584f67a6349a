"""The verb `merge`."""

import argparse

from kanana_jax.cli.verbs import AddVerb, place
from kanana_jax.errors import ConfigError

_EXAMPLE = """example:
  kanana merge runs/sft/sft runs/dpo/dpo --output merged
  kanana merge ko-model math-model --base base-model --method ties --density 0.2 --output merged

All models have one architecture and one tokenizer. A stage of kind 'merge' also looks for the best weights."""


def add_verbs(verb: AddVerb) -> None:
    """Adds the verb."""
    sub = verb("merge", _merge, "make one model from the weights of several", _EXAMPLE)
    sub.add_argument("models", nargs="+", metavar="MODEL", help="model, stage or Hugging Face folders")
    sub.add_argument("--output", required=True, type=place, metavar="OUT", help="new folder")
    sub.add_argument(
        "--method",
        default="linear",
        choices=("linear", "slerp", "task_arithmetic", "ties", "dare_ties"),
        help="default: linear, a weighted mean",
    )
    sub.add_argument(
        "--weights", type=float, nargs="+", default=[], metavar="W", help="a weight per model; default: all 1"
    )
    sub.add_argument(
        "--base",
        default="",
        metavar="MODEL",
        help="model from which the others were trained (not for linear and slerp)",
    )
    sub.add_argument("--scale", type=float, default=1.0, metavar="S", help="factor of the merged difference")
    sub.add_argument(
        "--density", type=float, default=0.2, metavar="P", help="share of each difference that ties and dare_ties keep"
    )
    sub.add_argument("--seed", type=int, default=0, metavar="S", help="seed of the elements that dare_ties keeps")


def _merge(options: argparse.Namespace, overrides: list[str], command: list[str]) -> None:
    from kanana_jax.files import locked
    from kanana_jax.interop import model_folder
    from kanana_jax.stages import merge
    from kanana_jax.surgery.merge import MergeConfig

    given = (tuple(options.models), options.method, tuple(options.weights), options.scale, options.density)
    try:
        config = MergeConfig(*given, options.seed)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if config.from_base and not options.base:
        raise ConfigError(f"'{options.method}' adds differences from a base: name it with --base")
    out = options.output
    if out.exists() and any(out.iterdir()):
        raise ConfigError(f"{out} exists and is not empty: name another folder")
    base, models = model_folder.find(options.base or options.models[0]), [model_folder.find(m) for m in options.models]
    with locked(out, folder=False):
        merge.carry_out(config, base, models, out, out.name)
    print(out)
