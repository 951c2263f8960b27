"""Detectors: a timm encoder between a spectrogram and a head, and their losses."""
