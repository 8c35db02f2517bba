"""Measures what a replica takes: starts real servers, sends loads, fits the parts of a step."""
