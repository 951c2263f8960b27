"""Waiting and running trials, which stage each of them needs next, and who stops: the driver without Ray."""
