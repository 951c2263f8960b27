"""A submission: one row a window of each soundscape, one column a species, complete whatever happens."""
