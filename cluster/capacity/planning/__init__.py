"""From adapters, traffic and promised latencies to replicas and GPUs."""
