"""Where events end and questions are answered: one port, several back ends."""
