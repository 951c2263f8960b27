"""Where trained stages are kept: files with their hashes, stages by id, leases, and what may be removed."""
