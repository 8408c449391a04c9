"""The service: sockets, processes, and nothing that could be a function of its arguments."""
