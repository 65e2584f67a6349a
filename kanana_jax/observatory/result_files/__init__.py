"""Result files of evaluations as a score table: of `kanana eval`, of lm-evaluation-harness, of Every Eval Ever."""

from kanana_jax.observatory.result_files.assembled import read, write
from kanana_jax.observatory.result_files.gather import found, gather, listed

__all__ = ["found", "gather", "listed", "read", "write"]
