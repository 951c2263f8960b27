"""One sweep from what the user asked for to its result."""
