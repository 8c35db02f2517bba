"""Training jobs on Ray: submitting, queueing, packing, sweeping, gating."""
