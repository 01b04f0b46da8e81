"""albert-serve: a production inference service for ALBERT."""

__version__ = "0.1.0"
