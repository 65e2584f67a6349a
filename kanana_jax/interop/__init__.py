"""Model folders: Hugging Face Llama checkpoints in and out, layer by layer."""
