"""What people read of a trained stage. It changes no result, so stages are not trained again when it changes."""
