"""A recipe: its config, the state that its stages share, and the run of its stages in order."""
