"""The decoder blocks that are measured, a module for each family of models."""
