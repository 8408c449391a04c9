"""The server: processes, sockets, routes, and how they are composed."""
