"""One file a kind of stage: a loss and its batches; `training/loop.py` does the rest."""
