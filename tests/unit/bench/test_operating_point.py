import numpy as np
import pandas as pd
from bench.operating_point import believed, classes_at


def test_a_spine_that_touches_its_dendrite_is_near_however_far_its_head():
    found = pd.DataFrame(
        {
            "spine_vol": [0.1, 0.1, 0.1, 0.01],
            "attached": ["seen", "inferred", "none", "seen"],
            "head_euclidean_dist_to_dend": [3.0, 0.9, 1.2, 0.0],
            "confidence": [0.9, 0.99, 0.95, 0.8],
        }
    )
    assert believed(found, 0.0, 0.05, 1.0).index.tolist() == [0, 1]
    assert believed(found, 0.0, 0.0, 4.0).index.tolist() == [0, 1, 2, 3]
    assert believed(found, 0.95, 0.0, 4.0).index.tolist() == [1, 2]


def test_spine_and_neck_count_together_against_the_threshold():
    probability = np.zeros((5, 1, 1, 3), np.float32)
    probability[:, 0, 0] = np.array(
        [[0.3, 0.4, 0.0, 0.0, 0.3], [0.1, 0.5, 0.1, 0.0, 0.3], [0.1, 0.2, 0.6, 0.0, 0.1]]
    ).T
    assert classes_at(probability, 0.75).tolist() == [[[0, 1, 2]]]
    assert classes_at(probability, 0.65).tolist() == [[[1, 1, 2]]]
