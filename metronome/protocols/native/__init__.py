"""Native protocol: flat JSON at ``POST /tick`` and a tracking pixel."""
