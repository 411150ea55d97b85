"""AUC, GAUC and paired bootstrap intervals."""

import numpy as np


def auc(labels, scores):
    """Area under the ROC curve by ranks, ties at their mean rank; NaN where one class is absent or a score is NaN."""
    labels = np.asarray(labels, bool)
    n_positive = int(labels.sum())
    n_negative = labels.size - n_positive
    if n_positive == 0 or n_negative == 0 or np.isnan(scores).any():
        return float("nan")
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    mean_rank = np.cumsum(counts) - (counts - 1) / 2
    return float((mean_rank[inverse][labels].sum() - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative))


def gauc(labels, scores, users):
    """AUC within each user, weighted by the user's impressions; users of one class do not count."""
    order = np.argsort(users, kind="stable")
    labels, scores, users = np.asarray(labels)[order], np.asarray(scores)[order], np.asarray(users)[order]
    total = weight = 0.0
    bounds = np.flatnonzero(np.diff(users)) + 1
    for l, s in zip(np.split(labels, bounds), np.split(scores, bounds)):
        if 0 < l.sum() < len(l):
            total += len(l) * auc(l, s)
            weight += len(l)
    return total / weight if weight else float("nan")


def bootstrap_users(users, n_draws, seed):
    """Yields n_draws index arrays that resample whole users."""
    rng = np.random.default_rng(seed)
    order = np.argsort(users, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(np.asarray(users)[order])) + 1)
    for _ in range(n_draws):
        yield np.concatenate([groups[i] for i in rng.integers(len(groups), size=len(groups))])


def interval(values, level=0.95):
    values = np.asarray(values)[np.isfinite(values)]
    tail = (1 - level) / 2
    return tuple(np.quantile(values, [tail, 1 - tail])) if values.size else (float("nan"), float("nan"))
