"""The page: the overview at ``/`` and the pages of items, rendered on the server."""
