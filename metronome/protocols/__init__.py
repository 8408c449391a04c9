"""How others write events: one pure parser for each protocol."""
