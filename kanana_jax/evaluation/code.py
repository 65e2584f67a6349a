"""Filters for task files that test programs written by a model; all programs run in the sandbox."""

import logging
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from kanana_jax.evaluation import sandbox

Doc = Mapping[str, Any]
Answers = Sequence[Sequence[str]]  # one or more per document
Judged = tuple[str, sandbox.Tests]

log = logging.getLogger("kanana")


def humaneval_program(doc: Doc, answer: str) -> Judged:
    """Program and tests of HumanEval (arXiv:2107.03374) and sets in its format: the answer continues the prompt.

    Helpers that the prompt defines are taken from the prompt, even if the answer redefines them.
    """
    entry = doc["entry_point"]
    tests = sandbox.Tests(f"{doc['test']}\ncheck({entry})\n", prelude=doc["prompt"], names=(entry,))
    return f"{doc['prompt']}{answer}\n", tests


def mbpp_program(doc: Doc, answer: str) -> Judged:
    """Program and tests of MBPP (arXiv:2108.07732): the answer is a program, tested by three assertions."""
    source = "\n".join([doc.get("test_setup_code") or "", *doc["test_list"], ""])
    return answer, sandbox.Tests(source, solution=doc.get("code") or "")


def mbpp_plus_program(doc: Doc, answer: str) -> Judged:
    """Program and tests of MBPP+ (EvalPlus, arXiv:2305.01210): one test with many inputs."""
    source = "\n".join([*(doc.get("test_imports") or []), doc["test"], ""])
    return answer, sandbox.Tests(source, solution=doc.get("code") or "")


def before_fence(answer: str) -> str:
    """The answer up to the end of the code block that the prompt has opened."""
    return answer.split("```", 1)[0]


def first_block(answer: str) -> str:
    """The first code block of an answer to a prompt that has opened one."""
    found = re.search(r"```(?:\w+)?\n?(.*?)(?:\n?```|$)", "```python\n" + answer, re.DOTALL)
    return answer if found is None else found[1]


def _tested(
    program: Callable[[Doc, str], Judged], extract: Callable[[str], str] = str, packages: Sequence[str] = ()
) -> Callable[[Answers, Sequence[Doc]], list[list[bool]]]:
    def passed(answers: Answers, docs: Sequence[Doc]) -> list[list[bool]]:
        programs = [program(doc, extract(a)) for several, doc in zip(answers, docs, strict=True) for a in several]
        outcomes = sandbox.run_all(programs, packages=packages)
        unjudged = [outcome.why for outcome in outcomes if outcome.unjudged]
        if unjudged:
            log.warning("%d of %d answers count as not passed: one %s", len(unjudged), len(outcomes), unjudged[0])
        each = iter(outcomes)
        return [[next(each).passed for _ in several] for several in answers]

    return passed


humaneval = _tested(humaneval_program)
humaneval_plus = _tested(humaneval_program, packages=("numpy",))
humaneval_plus_instruct = _tested(humaneval_program, before_fence, packages=("numpy",))
mbpp = _tested(mbpp_program)
mbpp_plus = _tested(mbpp_plus_program, packages=("numpy",))
mbpp_plus_instruct = _tested(mbpp_plus_program, first_block, packages=("numpy",))


def pass_at_1(doc: Doc, results: Sequence[Sequence[bool]]) -> dict[str, float]:
    """The share of a document's answers that passed: the unbiased estimate of pass@1 (arXiv:2107.03374, eq. 1)."""
    return {"pass@1": sum(results[0]) / len(results[0])}


def published_examples(docs: Iterable[Doc]) -> list[Doc]:
    """MBPP's few-shot examples: tasks 2, 3 and 4 of its prompt split."""
    return [doc for doc in docs if doc["task_id"] >= 2]
