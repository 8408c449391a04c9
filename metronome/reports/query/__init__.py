"""A question of somebody's own: read from an address or from JSON, asked, and answered as a table."""
