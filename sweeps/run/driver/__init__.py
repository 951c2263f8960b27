"""The parts of a driver's run: the nodes, Ray Tune, and the end. `runner.py` puts them together."""
