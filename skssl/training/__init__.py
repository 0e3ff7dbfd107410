"""The training loop: batches, the step, the epoch, the optimisers, and the checkpoints."""
