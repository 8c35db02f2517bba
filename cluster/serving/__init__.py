"""Many serving replicas behind one gateway, on Ray Serve."""
