"""What a tracker is sent, how it gets there, and what it looks like in MLflow."""
