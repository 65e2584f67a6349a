"""The sentences that summarise a study, beginning with the answer to the user's question."""

from kanana_jax.report.observatory import decided
from kanana_jax.report.observatory.sentences import Json, general


def answer(study: Json) -> list[str]:
    """The decision, if a plan was given, or else the most useful general finding; then the other findings."""
    if "plan" not in study:
        return general(study)
    return [decided.headline(study), *decided.further(study), *general(study)]
