"""What a user does with trained stages: name them, list, explain, trace, replay, import and remove them."""
