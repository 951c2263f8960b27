"""What recordings there are: collected from many sources, checked, described with pictures. Outside of `data`, so that editing it
does not change the identity of stages.
"""
