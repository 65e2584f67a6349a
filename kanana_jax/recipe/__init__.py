"""A recipe: its config, what its stages share, and the run of one after another."""
