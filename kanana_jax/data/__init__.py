"""Documents in, packed tokens out: sources, tokenizers, filters, mixtures, the Grain pipeline."""
