"""Texts as arrays: characters, documents, units, lines, hashes."""
