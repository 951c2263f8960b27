"""Metrics of a detector, their standard errors, and its reliability."""
