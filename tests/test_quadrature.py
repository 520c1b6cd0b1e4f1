"""Points on paths are those of one rule, wherever a path is taken."""

import numpy as np

from interp.attribution_patching import Estimator
from interp.quadrature import gauss_legendre


def test_the_points_of_every_path_are_those_of_one_rule():
    points, weights = np.polynomial.legendre.leggauss(5)
    rule = gauss_legendre(5)
    np.testing.assert_array_equal(rule.points, (points + 1) / 2)
    np.testing.assert_array_equal(rule.weights, weights / 2)
    assert Estimator("inputs", steps=5).points() == list(zip(rule.points, rule.weights))
