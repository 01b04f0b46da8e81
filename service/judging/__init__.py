"""Choosing among models, and what a model can be trusted with."""
