"""Prometheus and Grafana for trainer, server and cluster."""
