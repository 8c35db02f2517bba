"""Manifests, charts and containers that start a cluster."""
