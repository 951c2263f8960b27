"""The training of one stage: start, steps, epochs, scoring, checkpoints and interruption."""
