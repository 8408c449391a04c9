"""micro-metrics: events with a type, tags, a value and data, sent one by one, in batches, or by a pixel.

The protocol of https://github.com/firstandthird/micro-metrics. What it calls a *tracked document* is an event here:
`documents` converts payloads to documents, these to events, and stored events back to documents; `tracking` is the
ingest protocol, and `reports` and `routes` return what was tracked.
"""
