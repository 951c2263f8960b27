"""Calibrating a detector: its logits become probabilities, with thresholds, and post-processing where that helps."""
