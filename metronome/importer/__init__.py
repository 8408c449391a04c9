"""Import log files into a running server."""
