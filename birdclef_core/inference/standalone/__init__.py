"""What runs a bundle on a machine that has neither this project nor a network: its `runtime.py`, and what it needs beside it."""
