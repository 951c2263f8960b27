"""Packed data sets: a data folder as a few large files that any storage holds, and its way back onto a machine's own disk."""
