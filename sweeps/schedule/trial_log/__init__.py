"""How the records of trials lie on a storage, and how a driver writes them."""
