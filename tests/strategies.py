"""Hypothesis strategies: shapes, spacings, params."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from respan_common.geometry import VoxelSpacing
from respan_common.params import StageParams


def triples(low: int, high: int) -> st.SearchStrategy[tuple[int, int, int]]:
    """Three whole numbers (z, y, x)."""
    one = st.integers(low, high)
    return st.tuples(one, one, one)


EDGES_UM = st.floats(0.01, 5.0, allow_nan=False)
SPACINGS = st.builds(VoxelSpacing, EDGES_UM, EDGES_UM, EDGES_UM)

_SIZES = st.integers(1, 2**31 - 1)
_LENGTHS = st.floats(1e-6, 1e6)
_NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)

_OVERRIDES: dict[str, st.SearchStrategy[Any]] = {
    "care_models": st.dictionaries(_SIZES, _NAMES, max_size=3),
    "min_spine_volume_um3": st.floats(0, 1),
    "max_spine_volume_um3": st.floats(1.5, 1e6),
    "min_spine_confidence": st.floats(0, 1),
    "min_dendrite_brightness": st.floats(0, 1),
    "min_soma_volume_um3": st.floats(0, 1e6),
    "label_scheme": st.integers(1, 4),
    "class_balance": st.floats(0, 1),
    "weight_averaging": st.floats(0, 1),
    "flat_stages": st.none() | st.integers(0, 6),
    "step_size": st.none() | st.floats(0.01, 1),
    "spine_threshold": st.none() | st.floats(0, 1),
    "seed": st.integers(0, 2**31 - 1),
    "model_spacing_um": st.none() | st.lists(EDGES_UM, min_size=3, max_size=3),
    "resolution_um": st.none() | st.lists(EDGES_UM, min_size=3, max_size=3),
    "spacing_um": st.none() | st.lists(EDGES_UM, min_size=3, max_size=3),
    "features_per_stage": st.none() | st.lists(_SIZES, min_size=1, max_size=6),
}
_BY_TYPE: dict[Any, st.SearchStrategy[Any]] = {
    int: _SIZES,
    float: _LENGTHS,
    str: _NAMES,
    bool: st.booleans(),
}


def params(model: type[StageParams]) -> st.SearchStrategy[Any]:
    """Any valid parameters of a model."""
    fields = {name: _values(name, field.annotation) for name, field in model.model_fields.items()}
    return st.fixed_dictionaries(fields).map(model.model_validate)


def _values(name: str, annotation: Any) -> st.SearchStrategy[Any]:
    if name in _OVERRIDES:
        return _OVERRIDES[name]
    if annotation in _BY_TYPE:
        return _BY_TYPE[annotation]
    if name in ("patch_size", "shape"):
        return st.none() | triples(1, 2048).map(list)
    if name == "care_tiles":
        return triples(1, 64).map(list)
    return st.from_type(annotation)
