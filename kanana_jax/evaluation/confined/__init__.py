"""The sandbox's processes, which use only the standard library: launcher, program and judge."""
