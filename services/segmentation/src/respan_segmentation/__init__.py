"""RESPAN's segmentation service."""
