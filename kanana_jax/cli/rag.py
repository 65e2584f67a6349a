"""The verb `rag`."""

import argparse
import logging
from collections.abc import Sequence
from typing import Any

from kanana_jax.cli.verbs import AddVerb, place
from kanana_jax.errors import ConfigError

log = logging.getLogger("kanana")
_SHOWN = 3  # documents that could not be read
_EXAMPLE = """example:
  kanana rag runs/sft/sft --docs faq --ask "환불은 며칠 안에 되나요?"
  kanana rag --docs faq --ask "환불은 며칠 안에 되나요?" --passages 3
  kanana rag runs/sft/sft --docs faq --embedder runs/embed/contrastive --ask "返金は何日かかりますか。" --json out.json
  kanana rag runs/sft/sft --docs faq --ask "How long does a refund take?" --check

Answers from a folder of documents (PDF, HTML, Markdown, text, lines of JSON …) and cites passages by number. Without
MODEL it prints the passages that it finds. Where nothing is found it says so. --check judges each claim of an answer by
the quoted passages."""


def add_verbs(verb: AddVerb) -> None:
    """Adds the verb."""
    sub = verb("rag", _rag, "answer questions from a folder of documents", _EXAMPLE)
    sub.add_argument("model", nargs="?", metavar="MODEL", help="chat model: model, stage or Hugging Face folder")
    sub.add_argument("--docs", required=True, metavar="DIR", help="folder, file or glob of documents")
    sub.add_argument("--ask", required=True, action="append", metavar="TEXT", help="question; may be repeated")
    sub.add_argument("--embedder", default="", metavar="MODEL", help="embedding model, to search by vectors as well")
    sub.add_argument(
        "--vectors",
        type=place,
        metavar="DIR",
        help="with --embedder: folder that keeps the passages' vectors between runs",
    )
    sub.add_argument(
        "--rerank",
        default="",
        metavar="MODEL",
        help="language model that orders the best passages (20, or --passages) by the likelihood of the question",
    )
    sub.add_argument("--passages", type=int, default=5, metavar="N", help="maximum number of passages in the prompt")
    sub.add_argument("--characters", type=int, default=800, metavar="N", help="maximum length of a passage")
    sub.add_argument(
        "--least", type=float, default=0.3, metavar="P", help="minimum share of the question's words in a passage"
    )
    sub.add_argument(
        "--least-cosine",
        type=float,
        default=0.6,
        metavar="C",
        help="with --embedder: cosine that suffices without common words",
    )
    sub.add_argument("--max-new-tokens", type=int, default=256, metavar="N", help="longest answer, in tokens")
    sub.add_argument("--temperature", type=float, default=0.0, metavar="T", help="sampling temperature; 0: greedy")
    sub.add_argument("--seed", type=int, default=0, metavar="S", help="seed of sampling")
    sub.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="dtype of the computation")
    sub.add_argument(
        "--check", action="store_true", help="judge each claim by the passages: by MODEL itself, or by --judge-url"
    )
    sub.add_argument(
        "--judge-url", default="", metavar="URL", help="OpenAI-compatible endpoint of the judge, up to /v1"
    )
    sub.add_argument("--judge-model", default="", metavar="NAME", help="the judge's name at the endpoint")
    sub.add_argument("--key-variable", default="", metavar="NAME", help="environment variable with the endpoint's key")
    sub.add_argument(
        "--max-requests", type=int, default=1000, metavar="N", help="maximum number of requests to the judge"
    )
    sub.add_argument("--json", type=place, metavar="FILE", help="also write answers and passages to this file")


def _rag(options: argparse.Namespace, overrides: list[str], command: list[str]) -> None:
    if options.passages < 1 or options.characters < 50 or options.max_new_tokens < 1:
        raise ConfigError("--passages and --max-new-tokens must be at least 1, --characters at least 50")
    if not 0 <= options.seed < 2**32:
        raise ConfigError(f"--seed must be between 0 and 2**32 - 1, not {options.seed}")
    if not all(question.strip() for question in options.ask):
        raise ConfigError("--ask is empty: write a question")
    from kanana_jax.applications import passages, rag
    from kanana_jax.applications.embedder import Embedder
    from kanana_jax.applications.retrieval import Least, Retriever
    from kanana_jax.applications.saved_vectors import keeper
    from kanana_jax.inference.sampling import SamplingConfig

    try:
        least, sampling = Least(options.least, options.least_cosine), SamplingConfig(options.temperature)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if options.check and options.model is None:
        raise ConfigError("--check judges answers, which need a MODEL")
    if options.vectors and not options.embedder:
        raise ConfigError("--vectors keeps the vectors of --embedder: name a model there")
    judge = _judge_of(options)
    found = passages.of_folder(options.docs, options.characters)
    _tell(found)
    embedder = Embedder.load(options.embedder, options.dtype) if options.embedder else None
    vectors = keeper(embedder, options.embedder, options.dtype, options.vectors) if embedder is not None else None
    retriever = Retriever(found.passages, embedder, least, vectors=vectors)
    hits = _found(options, retriever)
    if options.model is None:
        answers = [
            rag.Answer(question, "" if own else rag.nothing_found(question), tuple(own))
            for question, own in zip(options.ask, hits)
        ]
        checks = [None for _ in answers]
    else:
        answers, checks = _answered(options, found, hits, sampling, judge)
    for number, (answer, check) in enumerate(zip(answers, checks)):
        lines = _lines(answer, asked=options.model is not None)
        print("\n" * (number > 0) + "\n".join([*lines, *(_check_lines(check) if check else [])]))
    if options.json:
        _write(options, found, answers, checks)


def _write(options: argparse.Namespace, found: Any, answers: Sequence[Any], checks: Sequence[Any]) -> None:
    from kanana_jax.files import write_json

    about = {"docs": options.docs, "documents": found.documents, "passages": len(found.passages)}
    about["left_out"] = [{"where": one.where, "reason": one.reason} for one in found.left_out]
    entries = [_entry(answer, check) for answer, check in zip(answers, checks)]
    write_json(options.json, {**about, "answers": entries})


def _found(options: argparse.Namespace, retriever: Any) -> list[list[Any]]:
    """The passages for each question, in their last order."""
    if not options.rerank:
        return [retriever.find(question, options.passages) for question in options.ask]
    from kanana_jax.applications import reranking
    from kanana_jax.inference.session import Session

    found = [retriever.find(question, max(options.passages, reranking.LOOKED_AT)) for question in options.ask]
    if not any(found):  # no model is needed
        return found
    session = Session.load(options.rerank, options.dtype)
    ordered = [reranking.reranked(session, question, hits) for question, hits in zip(options.ask, found)]
    return [hits[: options.passages] for hits in ordered]


def _judge_of(options: argparse.Namespace) -> Any:
    """The endpoint's judge, or None."""
    if not options.judge_url:
        return None
    if not (options.check and options.json):
        raise ConfigError("--judge-url needs --check, and --json FILE: replies are kept beside it")
    from kanana_jax.evaluation.grading import JudgeConfig, Replies

    try:
        config = JudgeConfig(options.judge_url, options.judge_model, options.key_variable, options.max_requests)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    replies = Replies(config, options.json.with_name(options.json.name + ".replies.jsonl"))
    replies.check_key()  # before hours of answering
    return replies


def _answered(
    options: argparse.Namespace, found: Any, hits: Sequence[Sequence[Any]], sampling: Any, judge: Any
) -> tuple[list[Any], list[Any]]:
    """Answers, and what a judge says of each that rests on passages."""
    from kanana_jax.applications import claims, rag
    from kanana_jax.data.tokens import chat
    from kanana_jax.inference.session import Session

    if not any(hits):  # no model is needed
        return [rag.answer(question, (), str, len, 0) for question in options.ask], [None for _ in options.ask]
    session = Session.load(options.model, options.dtype)
    session.tokenizer.chat.template()
    room = session.model.architecture.max_seq_len - options.max_new_tokens

    def ask(turns: list[dict[str, str]]) -> str:
        how = {"max_new_tokens": options.max_new_tokens, "sampling": sampling, "seed": options.seed}
        return session.answer(turns, **how, strip_thinking=True)

    def tokens(turns: list[dict[str, str]]) -> int:
        return len(chat.encode_chat(session.tokenizer, turns))

    answers = [rag.answer(question, own, ask, tokens, room) for question, own in zip(options.ask, hits)]
    if not options.check:
        return answers, [None for _ in answers]
    if options.json:  # the judge's endpoint may fail
        _write(options, found, answers, [None for _ in answers])
    reply = claims.by_endpoint(judge) if judge else claims.by_model(session)
    checks = [
        claims.checked(answer.text, answer.quoted, reply) if answer.hits else None
        for answer in answers
    ]
    return answers, checks


def _tell(found: Any) -> None:
    """Says what was read, and what could not be."""
    log.info("%d documents, %d passages", found.documents, len(found.passages))
    for one in found.left_out[:_SHOWN]:
        log.warning("%s is left out: %s", one.where, one.reason)
    if len(found.left_out) > _SHOWN:
        log.warning("%d more documents are left out: --json names all", len(found.left_out) - _SHOWN)


def _lines(answer: Any, asked: bool) -> list[str]:
    """An answer for people."""
    lines = [answer.question, *([answer.text] if answer.text else [])]
    for number, hit in enumerate(answer.hits, 1):
        if not asked:
            lines += [f"[{number}] {hit.passage.place}", hit.passage.text]
        elif number in answer.cited or not answer.cited:
            lines.append(f"[{number}] {hit.passage.place}")
    if asked and answer.hits and not answer.cited:
        lines.append("(the answer cites none of the passages that it was given)")
    if answer.unknown:
        lines.append(f"(it cites {', '.join(f'[{n}]' for n in answer.unknown)}: there is no such passage)")
    if answer.left_out:
        lines.append(f"({answer.left_out} passages more did not fit into the model's window)")
    return [*lines, *(["(the passage did not fit into the model's window as a whole)"] if answer.cut else [])]


def _check_lines(check: Any) -> list[str]:
    """Claims with their verdicts, for people."""
    told = [f"  {one.verdict or 'unread'}: {one.claim.text}" for one in check.verdicts]
    return [", ".join(f"{count} {name}" for name, count in check.counts.items()), *told]


def _entry(answer: Any, check: Any) -> dict[str, Any]:
    found = [
        {
            "id": hit.passage.id,
            "document": hit.passage.document,
            "title": hit.passage.title,
            "heading": hit.passage.heading,
            "text": hit.passage.text,
            "score": hit.score,
            "words": hit.words,
            "cosine": hit.cosine,
        }
        for hit in answer.hits
    ]
    made = {"question": answer.question, "answer": answer.text, "found": found, "cited": list(answer.cited)}
    made |= {"unknown": list(answer.unknown), "left_out": answer.left_out, "cut": answer.cut}
    if check is not None:
        judged = [{"claim": one.claim.text, "verdict": one.verdict} for one in check.verdicts]
        made["check"] = {**check.counts, "grounded": check.grounded, "verdicts": judged}
    return made
