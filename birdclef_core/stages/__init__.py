"""What a stage is, the seven recipes, and the training of one stage."""
