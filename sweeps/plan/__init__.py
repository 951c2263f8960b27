"""What a sweep would train and what that would cost, before anything runs."""
