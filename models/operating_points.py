"""What the shipped models' cards ask of a find, where the settings leave it open."""

OPERATING_POINTS: dict[str, dict[str, float]] = {
    "two-photon": {
        "spine_threshold": 0.3,
        "min_spine_confidence": 0.9,
        "min_spine_volume_um3": 0.2,
        "max_spine_distance_um": 1.5,
        "min_dendrite_volume_um3": 3.0,
        "min_dendrite_brightness": 0.25,
        "min_soma_volume_um3": 60.0,
    },
    "confocal": {
        "spine_threshold": 0.5,
        "min_spine_confidence": 0.9,
        "min_spine_volume_um3": 0.02,
        "max_spine_distance_um": 1.5,
        "min_dendrite_volume_um3": 3.0,
        "min_dendrite_brightness": 0.25,
        "min_soma_volume_um3": 60.0,
    },
}
"""Parameters of segmentation and quantification where the settings leave them open; chosen on
phantoms of another seed, by bench.operating_point."""
