"""The cost of a stage on chips that are not here, from the compiled program."""
