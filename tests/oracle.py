"""What is right: exact posteriors of linear-Gaussian measurements under Gaussian and mixture priors.

All on flattened samples, in float64, by dense linear algebra that shares nothing with the library.
"""

from typing import NamedTuple

import numpy as np


class Law(NamedTuple):
    mean: np.ndarray
    covariance: np.ndarray


def matrix(operator):
    """The dense matrix of a linear operator with real output, column by column."""
    size = int(np.prod(operator.shape))
    columns = [np.asarray(operator(np.eye(size)[i].reshape(operator.shape))).ravel() for i in range(size)]
    return np.stack(columns, axis=1)


def gaussian_posterior(mean, covariance, A, y, sigma):
    """`p(x | y)` for `x ~ N(mean, covariance)`, `y = A x + sigma n`."""
    gain = covariance @ A.T @ np.linalg.inv(A @ covariance @ A.T + sigma**2 * np.eye(len(A)))
    return Law(mean + gain @ (y - A @ mean), covariance - gain @ A @ covariance)


def mixture_posterior(means, weights, variances, A, y, sigma):
    """`p(x | y)` for an isotropic mixture: weights, means and covariances of its components."""
    laws, logs = [], []
    for mean, weight, variance in zip(means, weights, variances, strict=True):
        covariance = variance * np.eye(len(mean))
        laws.append(gaussian_posterior(mean, covariance, A, y, sigma))
        S = A @ covariance @ A.T + sigma**2 * np.eye(len(A))
        r = y - A @ mean
        logs.append(np.log(weight) - 0.5 * r @ np.linalg.solve(S, r) - 0.5 * np.linalg.slogdet(2 * np.pi * S)[1])
    logs = np.array(logs)
    weights = np.exp(logs - logs.max())
    return weights / weights.sum(), laws


def random_covariance(rng, size, low=0.2, high=2.0):
    """A random rotation of variances between `low` and `high`."""
    q, _ = np.linalg.qr(rng.standard_normal((size, size)))
    return (q * np.linspace(low, high, size)) @ q.T


def moment_errors(samples, law):
    """Largest deviations of sample mean and covariance, in units of their Monte-Carlo standard errors."""
    n = len(samples)
    mean, covariance = samples.mean(0), np.cov(samples.T)
    d = np.diag(law.covariance)
    mean_error = np.abs(mean - law.mean) / np.sqrt(d / n)
    covariance_error = np.abs(covariance - law.covariance) / np.sqrt((np.outer(d, d) + law.covariance**2) / n)
    return mean_error.max(), covariance_error.max()


def slope(steps, errors):
    """The order of convergence: minus the slope of log error against log steps."""
    return -np.polyfit(np.log(steps), np.log(errors), 1)[0]
