"""Propulsion beside other methods of fine-tuning, and its own ablations."""
