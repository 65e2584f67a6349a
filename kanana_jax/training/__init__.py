"""The one training engine: optimizer, schedule, step, loop, checkpoints, metrics."""
