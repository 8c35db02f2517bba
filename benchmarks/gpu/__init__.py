"""Benchmarks that want a GPU; with small sizes they run without one."""
