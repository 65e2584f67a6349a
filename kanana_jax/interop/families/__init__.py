"""One table per Hugging Face family: tensors, config to architecture and back."""
