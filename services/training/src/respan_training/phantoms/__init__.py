"""Synthetic volumes whose truth is known: images of dendrites with spines, labels and tables."""

from respan_training.phantoms.phantom import Phantom, make_phantom
from respan_training.phantoms.swc import swc_text

__all__ = ["Phantom", "make_phantom", "swc_text"]
