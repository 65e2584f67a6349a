"""The observatory: from benchmark scores of many models to the value of training tokens in a local language.

Follows 'Why We Build Local Large Language Models' (arXiv:2412.14471). `tables` reads scores, models and tasks;
`components` finds axes of ability by PCA; `budgets` converts tokens to compute by language; `scaling` relates axes to
compute; `pairs` compares continually trained models with their bases; `verdicts` and `planner` draw the conclusions;
`downstream` predicts tasks from axes; `study` runs everything. No module here imports JAX.
"""

DISCLAIMER = "Observational, not causal: models differ in much more than their token budgets."
