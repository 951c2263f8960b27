"""Embeddings: what an encoder that is not trained makes of sound, kept as a stage; and heads that are trained on them alone."""
