"""Import of access logs into a running server."""
