"""Reads data files and data sets into records."""
