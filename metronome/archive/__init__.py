"""Where events are kept for the long term: objects in S3 and the like, or in a folder."""
