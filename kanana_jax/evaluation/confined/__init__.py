"""Processes around generated code, with the standard library alone: launcher, program side, judge."""
