"""Writes the dashboards as JSON: `python -m cluster.monitoring.panels`."""

from cluster.monitoring.panels.catalogue import dashboard_files

for path, text in dashboard_files().items():
    path.write_text(text, encoding="utf-8")
    print(path)
