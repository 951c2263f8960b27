"""Waveforms and spectrograms: pure functions on batched tensors, run on the model's device."""
