"""Elasticsearch's way to send documents, so that whatever sends to Elasticsearch sends here as it is."""
