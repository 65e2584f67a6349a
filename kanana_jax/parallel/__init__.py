"""Device mesh, sharding rules, start-up of several hosts, and monitoring of their processes."""
