"""The true-micro-analytics protocol."""
