"""What a run will need, worked out from its base's configuration before any weight is loaded."""
