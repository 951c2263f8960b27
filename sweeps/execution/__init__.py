"""A trial as it runs: as plain Python, as a Ray actor, and on the slots of a cluster."""
