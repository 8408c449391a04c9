"""Keys, authorization, client addresses, and the salts that identify visitors."""
