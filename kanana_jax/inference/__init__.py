"""Text from a model: KV cache, sampling, batched generation."""
