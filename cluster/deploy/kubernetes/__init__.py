"""The chart's values, and the manifests that the chart makes of them."""
