"""Archive of all events as compressed objects, and its replay and verification."""
