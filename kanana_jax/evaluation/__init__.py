"""Evaluation: lm-evaluation-harness with our models, tasks on local files, comparison of results."""
