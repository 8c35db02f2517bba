"""Zipf traffic over more adapters than fit."""
