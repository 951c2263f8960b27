"""What the MLflow sink asks of a server: entries of runs, checkpoints as models, and what a refusal means."""
