"""From prepared sources to packed batches, exact on resume."""
