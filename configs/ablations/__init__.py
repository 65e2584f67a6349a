"""Ablations: each config defines arms that differ in one thing."""
