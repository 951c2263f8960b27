"""From files to batches: metadata, split, decoded cache, targets, clips."""
