"""Reports: each builds queries for a store and combines the results."""
