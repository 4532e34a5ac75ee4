"""RESPAN's restoration service."""
