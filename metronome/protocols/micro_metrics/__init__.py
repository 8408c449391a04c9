"""micro-metrics: events with a type, tags, a value and data, one by one, in batches, or by a pixel.

The protocol is that of the service of the same name (github.com/firstandthird/micro-metrics). What it calls a
*tracked document* is an event here; `documents` says how one becomes the other, and back.
"""
