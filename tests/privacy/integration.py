"""Privacy by numerical integration of the two densities themselves, for want of any theory."""

import numpy as np
from scipy.optimize import brentq

POINTS = 801  # along each axis


def mixture(axes, centres, weights, sigmas):
    """The density on a grid, whose axes are given, of a mixture of axis-parallel Gaussians.

    Args:
        axes: D arrays.
        centres: (M, D).
        weights: (M,).
        sigmas: (D,).
    """
    total = 0.0
    for centre, weight in zip(np.asarray(centres, float), weights, strict=True):
        density = weight
        for d, (axis, middle, sigma) in enumerate(zip(axes, centre, sigmas, strict=True)):
            values = np.exp(-(((axis - middle) / sigma) ** 2) / 2) / (sigma * np.sqrt(2 * np.pi))
            density = density * values.reshape([-1 if d == e else 1 for e in range(len(axes))])
        total = total + density
    return total


def axis(sigma, reach=1.0, points=POINTS):
    """Values in which a Gaussian of this standard deviation, moved by `reach`, lies wholly."""
    return np.linspace(-reach - 9 * sigma, reach + 9 * sigma, points)


def hockey_stick(p, q, axes, epsilon):
    """The larger of both integrals of max(0, P - e^epsilon Q), P and Q in either order."""
    cell = np.prod([a[1] - a[0] for a in axes])
    factor = np.exp(epsilon)
    return max(
        np.maximum(p - factor * q, 0).sum() * cell, np.maximum(q - factor * p, 0).sum() * cell
    )


def epsilon_of_densities(p, q, axes, delta):
    """The least epsilon at which both integrals are at most delta."""
    if hockey_stick(p, q, axes, 0.0) <= delta:
        return 0.0
    return brentq(lambda e: hockey_stick(p, q, axes, e) - delta, 0.0, 60.0, xtol=1e-6)
