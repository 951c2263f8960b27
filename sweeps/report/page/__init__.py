"""The page of a sweep, or of several: interactive charts in one file."""
