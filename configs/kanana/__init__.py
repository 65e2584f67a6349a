"""The paper's stages at full size (arXiv:2502.18934)."""
