"""Which trained stages hear together, with which weights, and what that is worth."""
