"""The reports of micro-metrics: each asks the store, of tracked documents only, and knows no store."""
