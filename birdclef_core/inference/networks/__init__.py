"""Networks as they are deployed, and what runs them."""
