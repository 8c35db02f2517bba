"""Which models the server knows: references, blends, splits, and what of them the engine holds."""
