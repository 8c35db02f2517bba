"""Replicas behind a gateway on Ray's multi-node test cluster: affinity, faults and recovery."""
