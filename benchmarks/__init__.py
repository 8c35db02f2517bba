"""Benchmarks: each prints one table and writes JSON, ratios to the baseline of the same run."""
