"""Scaling in a pass that the model makes anyway: its activations, rotary embeddings and norms."""

from serving.worker.fusion.fusion import Fusion
from serving.worker.fusion.search import find_fusions

__all__ = ["Fusion", "find_fusions"]
