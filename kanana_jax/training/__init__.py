"""The one training engine: losses, optimizer, schedule, step, loop, checkpoint, metrics."""
