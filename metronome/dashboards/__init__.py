"""Dashboards for Kibana, as saved objects: what Kibana shows of the events in Elasticsearch.

A dashboard (`usage`, `performance`, `health`) is rows of panels, a panel a few columns over the events that a query
lets through, and `build_saved_objects` makes of all of them what Kibana imports. To change one, change its module
here, and run
``make docs``, which writes ``kibana/metronome.ndjson`` anew.
"""

from metronome.dashboards.bundle import DASHBOARDS, build_saved_objects, dashboard_ids
from metronome.dashboards.objects import encode_ndjson

__all__ = ["DASHBOARDS", "build_saved_objects", "dashboard_ids", "encode_ndjson"]
