"""The Llama-3 architecture in Flax NNX: modules, attention, RoPE, presets, counts."""
