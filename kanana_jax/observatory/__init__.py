"""Scores of many models → components of ability → what a local-language token budget buys.

After 'Why We Build Local Large Language Models' (arXiv:2412.14471): `tables` reads, `components` finds axes, `budgets`
turns tokens into compute by language, `scaling` relates the two, `pairs` compares continual models with their bases,
`verdicts` and `planner` say what follows, `downstream` predicts tasks from axes, `study` runs it all. No JAX.
"""

DISCLAIMER = "Observational, not causal: models differ in much more than their token budgets."
