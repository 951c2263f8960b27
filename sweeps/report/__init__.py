"""What a sweep has found, as people read it: the ranking, the tree of its stages, the files of its result."""
