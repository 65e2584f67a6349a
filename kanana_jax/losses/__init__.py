"""Losses on hidden states or logits: sums over tokens, worked through in chunks."""
