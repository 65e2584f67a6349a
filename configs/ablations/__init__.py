"""Comparisons of arms that differ in one thing."""
