"""Figures of the models of `configs/ablations/adaptation.py`: answers from documents, calls, and what is forgotten.

    python benchmarks/adaptation.py documents runs/adaptation/documents-0 --before runs/alignment/sft-0/sft
    python benchmarks/adaptation.py calls runs/adaptation/calls-0 --before runs/alignment/sft-0/sft

Prints one JSON line, figures by model and name. Of `documents`, the shape of Table 11: shares of 100 questions about
articles of an unread world that are answered, cited and, where no article tells, refused (grounding), and the accuracy
of answers without documents by domain (helpfulness; forms are the instructions that are followed). Of `calls`, the
accuracy of 50 unseen turns per language under the grammar and free, and that of answers without functions.
"""

import argparse
import json
import pathlib

from alignment import measure
from kanana_jax.configs.ablations.adaptation import ARMS, STAGES
from kanana_jax.configs.tiny_adaptation import PEOPLE, UNREAD

from kanana_jax.applications import call_benchmarks, document_questions
from kanana_jax.data.microworld import World, document
from kanana_jax.evaluation import function_calls
from kanana_jax.inference.session import Session

QUESTIONS, TURNS, PROMPTS = 100, 50, 25
_UNSEEN = 100_000  # the first record that no run reads


def figures(arm: str, workdir: pathlib.Path, before: pathlib.Path) -> dict[str, float]:
    """`MODEL.name` → value, of the model before and of each that the arm has made."""
    models = {"before": before} | {name: workdir / name for name in STAGES[arm] if (workdir / name / "model").is_dir()}
    found: dict[str, float] = {}
    for name, folder in models.items():
        session = Session.load(str(folder))
        made = _documents(session) if arm == "documents" else _calls(session)
        made |= {key: value for key, value in measure(folder, each=PROMPTS).items() if key not in ("tokens", "ended")}
        found |= {f"{name}.{key}": round(float(value), 5) for key, value in made.items()}
    return found


def _documents(session: Session) -> dict[str, float]:
    items = document_questions.items(f"{UNREAD}&count=200", QUESTIONS)
    found = document_questions.evaluate(session, items, max_new_tokens=32)["results"]
    return {key: found[key] for key in ("answered", "cited", "refused", "refused_wrongly")}


def _calls(session: Session) -> dict[str, float]:
    world = World.create(seed=0, size=PEOPLE)
    asked = {}
    for lang in ("ko", "en"):
        records = [document(world, "calls", lang, _UNSEEN + i) for i in range(TURNS)]
        asked[lang] = [function_calls.of_conversation(record, lang) for record in records]
    found = {}
    for way, constrained in (("grammar", True), ("free", False)):
        results = call_benchmarks.evaluate(session, asked, constrained=constrained)["results"]
        for lang in asked:
            found |= {f"calls_{lang}_{way}": results[lang]["accuracy"], f"broken_{lang}_{way}": results[lang]["broken"]}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("arm", choices=ARMS)
    parser.add_argument("workdir", type=pathlib.Path)
    parser.add_argument("--before", type=pathlib.Path, required=True, help="the model that the arm starts from")
    options = parser.parse_args()
    print(json.dumps(figures(options.arm, options.workdir, options.before)))


if __name__ == "__main__":
    main()
