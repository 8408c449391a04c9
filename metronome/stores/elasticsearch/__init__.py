"""The store for several machines: Elasticsearch."""

from metronome.stores.elasticsearch.connection import ElasticsearchConfig
from metronome.stores.elasticsearch.store import ElasticsearchStore

__all__ = ["ElasticsearchConfig", "ElasticsearchStore"]
