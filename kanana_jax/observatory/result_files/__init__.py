"""Reads score tables from evaluation results of `kanana eval`, lm-evaluation-harness and Every Eval Ever."""

from kanana_jax.observatory.result_files.assembled import read, texts, write
from kanana_jax.observatory.result_files.gather import found, gather, listed

__all__ = ["found", "gather", "listed", "read", "texts", "write"]
