"""Keys, authorization and client addresses."""
