"""The paper's models and stages at full size (arXiv:2502.18934)."""
