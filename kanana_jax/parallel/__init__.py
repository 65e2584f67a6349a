"""Mesh, sharding rules and multi-host start."""
