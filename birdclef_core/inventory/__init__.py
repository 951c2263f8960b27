"""The recordings that there are: collected from many sources, checked, and described with pictures."""
