"""Bundles: a folder with all that a detector is made of, which needs no store and can be copied to another machine."""
