"""The nodes of a cluster: what a trial gets of one, and whether a node can train. Nothing here needs Ray."""
