"""Kanana's mixtures (arXiv:2502.18934, Figure 2): shares of tokens by category, percent."""

STAGE1 = {"en_web": 67.8, "code": 12.8, "ko_web": 9.6, "academic": 8.7, "encyclopedia": 1.0}
STAGE2 = {
    "academic": 35.8,
    "code": 34.3,
    "ko_web": 20.5,
    "en_web": 5.3,
    "encyclopedia": 2.4,
    "instruction": 1.8,
}
