"""RESPAN's training service."""
