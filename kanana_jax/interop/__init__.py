"""Model folders: reading and writing of Hugging Face checkpoints, layer by layer."""
