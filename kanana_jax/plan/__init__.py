"""The cost of a stage on chips that are not present, from the compiled program."""
