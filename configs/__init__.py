"""Experiments: modules with `get_config(arg)`; installed as `kanana_jax.configs`."""
