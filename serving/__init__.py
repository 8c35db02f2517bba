"""Serve many Propulsion adapters on one vLLM engine (design.md section 5)."""
