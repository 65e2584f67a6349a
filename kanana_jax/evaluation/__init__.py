"""Evaluation: lm-evaluation-harness on our models, tasks on local files, comparison of results."""
