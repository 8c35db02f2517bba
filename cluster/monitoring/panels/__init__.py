"""The Grafana dashboards, declared; `python -m cluster.monitoring.panels` writes them as JSON."""
