"""The verb `judge`."""

import argparse
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

from kanana_jax.cli.verbs import AddVerb, place
from kanana_jax.errors import ConfigError

_EXAMPLE = """example:
  kanana judge answers.jsonl --url https://api.openai.com/v1 --model gpt-5 --key-variable OPENAI_API_KEY --output o.json
  kanana judge after.jsonl --against before.jsonl --url http://127.0.0.1:8000/v1 --model sft --output out.json
  kanana judge model_answer.jsonl --questions question.jsonl --url URL --model gpt-5 --output mt_bench.json

Lines are {"id", "prompt", "answer"}, with "reference" and "category" where there are any; a prompt is a text or
messages. Pairs are shown in both orders. Replies are kept beside the output, so that the same command resumes. Without
--url nothing is judged."""


def add_verbs(verb: AddVerb) -> None:
    """Adds the verb."""
    sub = verb("judge", _judge, "have answers rated or compared by a model behind an endpoint", _EXAMPLE)
    sub.add_argument("answers", type=place, metavar="FILE.jsonl", help="answers to judge")
    sub.add_argument("--against", type=place, metavar="FILE.jsonl", help="answers with the same ids to compare with")
    sub.add_argument(
        "--questions",
        type=place,
        metavar="FILE.jsonl",
        help="questions as MT-Bench, KoMT-Bench, LogicKor or WildBench publish them, which the answers are to",
    )
    sub.add_argument(
        "--references", type=place, metavar="FILE.jsonl", help="right answers to these questions, in a form of answers"
    )
    sub.add_argument("--output", required=True, type=place, metavar="FILE.json", help="file of the scores")
    sub.add_argument("--url", default="", metavar="URL", help="OpenAI-compatible endpoint, up to /v1")
    sub.add_argument("--model", default="", metavar="NAME", help="the judge's name at the endpoint")
    sub.add_argument("--key-variable", default="", metavar="NAME", help="environment variable that holds the key")
    sub.add_argument(
        "--max-requests", type=int, default=1000, metavar="N", help="maximum number of requests in this run"
    )
    sub.add_argument("--concurrency", type=int, default=8, metavar="N", help="maximum number of concurrent requests")


def _judge(options: argparse.Namespace, overrides: list[str], command: list[str]) -> None:
    if not options.url:
        print("no --url: there is no judge, and nothing was judged")
        return
    from kanana_jax.data.read import outputs
    from kanana_jax.evaluation import grading
    from kanana_jax.files import locked, write_json

    given = (options.answers, options.against, options.questions, options.references)
    outputs.apart(options.output, [str(file) for file in given if file is not None])
    try:
        how = {"max_requests": options.max_requests, "concurrency": options.concurrency}
        config = grading.JudgeConfig(options.url, options.model, options.key_variable, **how)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if options.references and not options.questions:
        raise ConfigError("--references needs --questions: name both, or neither")
    items = _of_set(options) if options.questions else _of_lines(options)
    with locked(options.output, folder=False):
        replies = grading.Replies(config, options.output.with_name(options.output.name + ".replies.jsonl"))
        found = grading.judged(items, replies)
        write_json(options.output, {"judge": config.model, "against": str(options.against or ""), **found})
    for name, row in found["results"].items():
        mean, error = row["score"], row["score_stderr"]
        told = "none" if mean is None else f"{mean:.3f}" + ("" if error is None else f" ± {1.96 * error:.3f}")
        print(f"{name}: {told} of {row['n']}, {row['unread']} without a verdict")


def _of_lines(options: argparse.Namespace) -> list[Any]:
    from kanana_jax.evaluation import grading

    answers, others = _read(options.answers), _read(options.against) if options.against else None
    if others is not None and answers.keys() != others.keys():
        odd = min(answers.keys() ^ others.keys())
        raise ConfigError(
            f"{options.answers} and {options.against} must answer the same questions: '{odd}' is in only one of them"
        )
    return [
        grading.Item(
            key,
            _words(row["prompt"], f"{options.answers}, id '{key}'"),
            row["answer"],
            None if others is None else others[key]["answer"],
            row.get("reference", ""),
            row.get("category", ""),
        )
        for key, row in answers.items()
    ]


def _of_set(options: argparse.Namespace) -> list[Any]:
    from kanana_jax.evaluation import judged_sets

    questions = _by_id(options.questions, lambda row: row)
    answers = _by_id(options.answers, judged_sets.answers_of)
    others = _by_id(options.against, judged_sets.answers_of) if options.against else None
    right = _by_id(options.references, judged_sets.answers_of) if options.references else {}
    found = []
    for key, question in questions.items():
        for file, given in ((options.answers, answers), (options.against, others)):
            if given is not None and key not in given:
                raise ConfigError(f"{file} has no answer to question '{key}' of {options.questions}")
        try:
            against = None if others is None else others[key]
            found += judged_sets.items(question, answers[key], against, right.get(key, ()))
        except ValueError as error:
            raise ConfigError(f"{options.questions}, question '{key}': {error}") from error
    return found


def _by_id(file: pathlib.Path, read: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    from kanana_jax.evaluation import judged_sets

    found: dict[str, Any] = {}
    for number, row in _rows(file):
        try:
            key = judged_sets.key_of(row)
            if key in found:
                raise ValueError(f"has the id '{key}', which occurs twice")
            found[key] = read(row)
        except ValueError as error:
            raise ConfigError(f"{file}, line {number} {error}") from error
    if not found:
        raise ConfigError(f"{file} is empty")
    return found


def _read(file: pathlib.Path) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for number, row in _rows(file):
        if not isinstance(row.get("answer"), str) or "prompt" not in row:
            raise ConfigError(f"{file}, line {number} lacks 'prompt' or 'answer': each line needs both")
        if not all(isinstance(row.get(key, ""), str) for key in ("reference", "category")):
            raise ConfigError(f"{file}, line {number}: 'reference' and 'category' must be texts")
        key = str(row.get("id", number))
        if key in found:
            raise ConfigError(f"{file}, line {number}: id '{key}' occurs twice")
        found[key] = row
    if not found:
        raise ConfigError(f"{file} has no answers")
    return found


def _rows(file: pathlib.Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a file, each with the number of its line."""
    from kanana_jax.data.read import jsonl

    try:
        lines = file.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} cannot be read ({error}): name a .jsonl file") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = jsonl.parse(line)
        except ValueError as error:
            raise ConfigError(f"{file}, line {number} is not JSON ({error}): correct it") from error
        if not isinstance(row, dict):
            raise ConfigError(f"{file}, line {number} is not a JSON object: correct it")
        yield number, row


def _words(prompt: Any, where: str) -> str:
    if isinstance(prompt, str):
        return prompt
    turns = prompt if isinstance(prompt, list) else [prompt]
    if not all(isinstance(turn, dict) and isinstance(turn.get("content"), str) for turn in turns):
        raise ConfigError(f"{where}: 'prompt' must be a text, or messages with 'role' and 'content', a text")
    return "\n".join(f"{turn.get('role', 'user')}: {turn['content']}" for turn in turns)
