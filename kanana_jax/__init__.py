"""kanana-jax: a compute-efficient recipe for local language models, and what a budget buys."""

__version__ = "0.1.0"
REPOSITORY = "https://github.com/OWNER/kanana-jax"
AUTHORS = "The kanana-jax authors"
