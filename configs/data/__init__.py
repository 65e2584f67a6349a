"""Filters by language."""
