"""How good a detector is: metrics, one row of scores a recording, pictures."""
