"""RESPAN's quantification service."""
