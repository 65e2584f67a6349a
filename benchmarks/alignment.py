"""Accuracy of a model's answers to the microworld's instructions, by domain, and its distance from another model.

    python benchmarks/alignment.py MODEL [--against SFT] [--prompts 50] [--best-of 16 --reward REWARD_MODEL]

Prompts are of the four domains in Korean and English (`data/microworld/conversations.py`), by indices that no run of
`configs/ablations/alignment.py` reads; sums repeat all the same, since there are only 180 of them. The verifier of each
prompt judges a greedy answer. Prints one JSON line: accuracy in all, by domain and by language, tokens of an answer,
and the share of answers that end. `--against` adds the KL to another model per answer, in nats: the mean of
log p − log q over sampled answers. `--best-of N` adds the gain of a reward model's choice among N answers, as the
verifiers judge it.
"""

import argparse
import json
import pathlib

import jax
import numpy as np
from kanana_jax.configs.tiny_adaptation import PEOPLE

from kanana_jax.data.microworld import World, document
from kanana_jax.data.microworld.conversations import DOMAINS, LANGUAGES
from kanana_jax.data.tokens import chat
from kanana_jax.evaluation.best_of_n import best_of_n
from kanana_jax.evaluation.verifiers import RECORD, Question, verify
from kanana_jax.inference.reward_model import RewardModel
from kanana_jax.inference.rollout import Answer, RolloutConfig, rollout
from kanana_jax.inference.sampling import SamplingConfig
from kanana_jax.inference.scoring import score
from kanana_jax.inference.session import Session
from kanana_jax.stages.sampled import answers_of

_FIRST = 100_000  # index of the first prompt; runs take some thousands from 0 on
_NEW = 48  # tokens of an answer, at most
_AT_ONCE = 40  # prompts
JUDGE = verify({RECORD: 1.0})


def questions(session: Session, each: int) -> dict[tuple[str, str], list[Question]]:
    """`each` prompts of every (domain, language)."""
    world, found = World.create(seed=0, size=PEOPLE), {}
    for domain in DOMAINS:
        for lang in LANGUAGES:
            rows = [document(world, f"prompts-{domain}", lang, _FIRST + i) for i in range(each)]
            found[domain, lang] = [
                Question(
                    f"{domain}-{lang}-{i}",
                    chat.encode_chat(session.tokenizer, row["prompt"]),
                    row["prompt"][-1]["content"],
                    lang,
                    row["verifier"],
                    row["answer"],
                )
                for i, row in enumerate(rows)
            ]
    return found


def drawn_by(session: Session, asked: list[Question], config: RolloutConfig) -> list[list[Answer]]:
    """Sampled answers, `[P][N]`, with the log-probabilities of their tokens."""
    found = []
    with jax.set_mesh(session.mesh):
        for begin in range(0, len(asked), _AT_ONCE):
            key = jax.random.fold_in(jax.random.key(0), begin)
            prompts = [q.ids for q in asked[begin : begin + _AT_ONCE]]
            tokens = session.tokenizer.vocab_size
            stop = session.stop_ids
            found += rollout(session.params, session.model, prompts, config, stop=stop, tokens=tokens, key=key)
    return found


def measure(path: pathlib.Path, against: pathlib.Path | None = None, each: int = 50) -> dict[str, float]:
    """The figures of a model folder, see above."""
    session = Session.load(str(path))
    sets = questions(session, each)
    right, lengths, ended = {}, [], []
    for name, asked in sets.items():
        greedy = session.continue_ids([q.ids for q in asked], _NEW, SamplingConfig(temperature=0.0), 0)
        right[name] = JUDGE(asked, [session.text_of(q.ids, ids) for q, ids in zip(asked, greedy)])
        lengths += [len(ids) for ids in greedy]
        ended += [len(ids) < _NEW for ids in greedy]
    figures = {"accuracy": np.mean([*right.values()])}
    figures |= {domain: np.mean([right[domain, lang] for lang in LANGUAGES]) for domain in DOMAINS}
    figures |= {lang: np.mean([right[domain, lang] for domain in DOMAINS]) for lang in LANGUAGES}
    figures |= {"tokens": np.mean(lengths), "ended": np.mean(ended)}
    if against is not None:
        figures["kl"] = kl(session, Session.load(str(against)), [q for asked in sets.values() for q in asked])
    return {name: round(float(value), 5) for name, value in figures.items()}


def kl(session: Session, other: Session, asked: list[Question]) -> float:
    """Mean of log p − log q over answers that are sampled from p, nats per answer."""
    drawn = drawn_by(session, asked, RolloutConfig(samples=2, max_new_tokens=_NEW))
    flat = [(q.ids, answer) for q, group in zip(asked, drawn) for answer in group]
    with jax.set_mesh(other.mesh):
        under = score(other.params, other.model, [(prompt, answer.ids) for prompt, answer in flat])
    return float(np.mean([answer.log_probs.sum() - q.log_likelihood for (_, answer), q in zip(flat, under)]))


def best_of(path: pathlib.Path, reward: pathlib.Path, n: int, each: int = 25) -> dict[str, float]:
    """Accuracy of what the reward model chooses among 1, 2, 4 … n answers, and of a choice that knows the answer."""
    session, model = Session.load(str(path)), RewardModel.load(str(reward))
    model.check(session.tokenizer)
    asked = [q for own in questions(session, each).values() for q in own]

    def sample(prompts, count):
        return answers_of(session, prompts, RolloutConfig(samples=count, max_new_tokens=_NEW), 0)[0]

    found = best_of_n(asked, sample, {"reward": model, "oracle": JUDGE}, JUDGE, n)
    return {f"{name}@{p.n}": round(p.score, 5) for name, points in found.curves.items() for p in points}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--against", type=pathlib.Path)
    parser.add_argument("--prompts", type=int, default=50, help="of each domain and language")
    parser.add_argument("--best-of", type=int, default=0, metavar="N")
    parser.add_argument("--reward", type=pathlib.Path, help="the model that chooses among N")
    options = parser.parse_args()
    figures = measure(options.model, options.against, options.prompts)
    if options.best_of:
        figures |= best_of(options.model, options.reward, options.best_of, max(1, options.prompts // 2))
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
