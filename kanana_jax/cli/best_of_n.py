"""The verb `best-of-n`."""

import argparse
import math
import pathlib
import time
from typing import Any

from kanana_jax import progress
from kanana_jax.cli.verbs import AddVerb, place
from kanana_jax.errors import ConfigError

_EXAMPLE = """example:
  kanana best-of-n runs/sft/sft --prompts prompts.jsonl --reward runs/reward/reward --n 1,2,4,8 --output best.json
  kanana best-of-n runs/sft/sft --prompts prompts.jsonl --reward runs/rm-a/reward --reward runs/rm-b/reward --output b

Samples N answers to each prompt, lets each reward model choose the best of n of them, and judges the choices by the
verifiers that the prompts name, or by --verifier. Without --reward, the verifiers choose themselves (the best that
any reward model could do). With --verifier none, one reward model also judges. Beside the output lie the answers
(FILE.samples.jsonl) and a page with the curves (FILE.html). --pairs writes preference pairs of the policy's own
answers for configs/dpo.py and configs/reward.py; the (best) reward model decides which answer is better, or, without
--reward, the verifiers."""


def add_verbs(verb: AddVerb) -> None:
    """Adds the verb."""
    sub = verb("best-of-n", _best_of_n, "measure what choosing among answers gains, by reward model", _EXAMPLE)
    sub.add_argument("policy", metavar="POLICY", help="model, stage or Hugging Face folder with a chat template")
    sub.add_argument("--prompts", required=True, metavar="FILE", help="prompts with 'answer' and 'verifier'")
    sub.add_argument(
        "--reward", action="append", default=[], metavar="MODEL", help="reward model that chooses; may be repeated"
    )
    sub.add_argument(
        "--verifier",
        default="record",
        metavar="NAME",
        help="that judges (default: each record's own), or none",
    )
    sub.add_argument(
        "--n", default="1,2,4,8", metavar="N,…", help="numbers of answers to choose among; the largest is sampled"
    )
    sub.add_argument("--output", required=True, type=place, metavar="FILE.json", help="file of the curves")
    sub.add_argument("--pairs", type=place, metavar="FILE.jsonl", help="file of preference pairs to write")
    sub.add_argument("--pairs-per-prompt", type=int, default=1, metavar="N", help="maximum number of pairs of a prompt")
    sub.add_argument("--limit", type=int, default=0, metavar="N", help="maximum number of prompts; default: all")
    sub.add_argument("--max-new-tokens", type=int, default=256, metavar="N", help="longest answer, in tokens")
    sub.add_argument("--temperature", type=float, default=1.0, metavar="T", help="sampling temperature, above 0")
    sub.add_argument("--top-p", type=float, default=1.0, metavar="P", help="sample among the best tokens of mass P")
    sub.add_argument("--seed", type=int, default=0, metavar="S", help="seed of sampling")
    sub.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="dtype of the computation")


def _best_of_n(options: argparse.Namespace, overrides: list[str], command: list[str]) -> None:
    sizes = _sizes(options.n)
    judged = options.verifier != "none"
    if not judged and len(options.reward) != 1:
        raise ConfigError("--verifier none leaves nothing to judge by: name one --reward, which then judges too")
    if options.pairs is not None and options.pairs.suffix != ".jsonl":
        raise ConfigError(f"--pairs {options.pairs}: pairs are lines of JSON: name a file that ends in .jsonl")
    if options.pairs is not None and (options.pairs_per_prompt < 1 or max(sizes) < 2):
        raise ConfigError("--pairs needs two answers to a prompt and --pairs-per-prompt of at least 1: raise --n")
    samples = _beside(options.output, ".samples.jsonl")
    if options.pairs in (options.output, samples):
        raise ConfigError(f"--pairs {options.pairs} is a file that --output writes, too: give it another name")
    from kanana_jax.data.read import outputs
    from kanana_jax.evaluation.verifiers import Scorer, verify
    from kanana_jax.files import locked, write_json
    from kanana_jax.inference.reward_model import RewardModel
    from kanana_jax.inference.rollout import RolloutConfig
    from kanana_jax.inference.sampling import SamplingConfig
    from kanana_jax.inference.session import Session
    from kanana_jax.report.best_of_n import write_page
    from kanana_jax.stages.best_of_n import compare, questions_of, read_prompts, write_pairs, write_samples

    for output in (options.output, options.pairs):
        if output is not None:
            outputs.apart(output, [options.prompts])
    try:
        sampling = SamplingConfig(temperature=options.temperature, top_p=options.top_p)
        config = RolloutConfig(max(sizes), options.max_new_tokens, sampling)
        verifier = verify({options.verifier: 1.0}) if judged else None
    except ValueError as error:
        raise ConfigError(str(error)) from error
    with locked(options.output, folder=False):
        policy = Session.load(options.policy, options.dtype)
        new = options.max_new_tokens
        prompts = read_prompts(options.prompts, options.limit)
        questions = questions_of(prompts, policy, new, "--max-new-tokens")
        scorers: dict[str, Scorer] = {}
        for name in options.reward:
            scorers[name] = model = RewardModel.load(name, options.dtype)
            model.check(policy.tokenizer)
        judge = verifier or scorers[options.reward[0]]
        scorers = scorers or {"verifier": judge}
        begun = time.monotonic()
        with progress.shown("best-of-n") as update:

            def show(done: int) -> None:
                left = (time.monotonic() - begun) * (len(questions) - done) / done
                text = f"{done:,} of {len(questions):,} prompts answered, ETA {progress.duration(left)}"
                update(text, done / len(questions))

            compared = compare(policy, questions, scorers, judge, config, sizes, options.seed, show)
        settings = {key: getattr(options, key) for key in ("max_new_tokens", "temperature", "top_p", "seed", "dtype")}
        about = {"policy": options.policy, "judge": options.verifier if judged else options.reward[0]}
        result: dict[str, Any] = {**about, **compared.to_dict(), "settings": settings, "command": command}
        write_samples(samples, questions, compared)
        write_page(result, _beside(options.output, ".html"))
        write_json(options.output, result)
        if options.pairs is not None:
            pairs, some = write_pairs(options.pairs, prompts, compared, options.pairs_per_prompt)
            print(f"{options.pairs}: {pairs:,} pairs, of {some:,} of {len(questions):,} prompts")
    found = compared.selection
    for name, points in found.curves.items():
        for point in points:
            span = "" if math.isnan(point.error) else f" (95%: {point.ends[0]:.3f} to {point.ends[1]:.3f})"
            print(f"{name}: best of {point.n} (KL ≤ {point.kl:.3f}) {point.score:.3f}{span}")
    print(f"best: {found.best}" if len(found.curves) > 1 else options.output)


def _sizes(given: str) -> list[int]:
    try:
        found = sorted({int(part) for part in given.split(",")})
    except ValueError as error:
        raise ConfigError(f"--n {given} is not a list of numbers: write it as 1,2,4,8") from error
    if found[0] < 1:
        raise ConfigError(f"--n counts answers: {found[0]} is less than 1")
    return found


def _beside(output: pathlib.Path, ending: str) -> pathlib.Path:
    return output.with_name(output.name.removesuffix(".json") + ending)
