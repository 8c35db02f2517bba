"""A discrete-event simulation of the router, the replicas and the autoscaler."""
