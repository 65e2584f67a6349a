"""Model folders: Hugging Face checkpoints in and out, layer by layer."""
