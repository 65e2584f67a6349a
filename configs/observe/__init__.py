"""Families of models for the observatory."""
