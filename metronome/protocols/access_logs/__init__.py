"""Access logs of web servers: detect the format, parse lines to the fields of events. Needs no server."""
