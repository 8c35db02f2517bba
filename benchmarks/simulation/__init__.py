"""The simulation against a real run, and at a size that nobody can rent for a test."""
