"""kanana-jax: a compute-efficient recipe for local language models, and what a budget buys."""

__version__ = "0.1.0"
