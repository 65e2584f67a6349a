"""Tokenizers: loading, training, chat templates."""
