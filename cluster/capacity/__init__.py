"""How many replicas and GPUs a load needs."""
