"""Which point of the search space is tried next."""
