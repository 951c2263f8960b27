"""Detectors as they are deployed: windows with context, procedures, runtimes, predictions for files."""
