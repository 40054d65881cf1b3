import pytest

import robustperf as rp


@pytest.fixture(scope="module")
def digits():
    """200 training images of scikit-learn's digits."""
    return rp.data.load("digits", "train").limit(200)
