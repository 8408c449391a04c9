"""The store for more than one machine: Elasticsearch."""

from metronome.stores.elasticsearch.connection import ElasticsearchConfig
from metronome.stores.elasticsearch.store import ElasticsearchStore

__all__ = ["ElasticsearchConfig", "ElasticsearchStore"]
