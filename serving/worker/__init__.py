"""What runs in vLLM's workers: the z-bank, its slots, the scaled layers, and loading into them."""
