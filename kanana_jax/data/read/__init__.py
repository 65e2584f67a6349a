"""Records of any file, and sources on disk."""
