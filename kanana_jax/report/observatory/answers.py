"""The sentences that a study is told by, the answer to what was asked first."""

from kanana_jax.report.observatory import decided
from kanana_jax.report.observatory.sentences import Json, general


def answer(study: Json) -> list[str]:
    """The decision where a plan was asked about, else the most useful of the general findings; then the others."""
    if "plan" not in study:
        return general(study)
    return [decided.headline(study), *decided.further(study), *general(study)]
