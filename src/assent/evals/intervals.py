"""Where `evals` has its intervals from: `assent.intervals`, which `feedback` reads too."""

from assent.intervals import (
    CELLS,
    LEVEL,
    RESAMPLES,
    Estimate,
    Floats,
    Interval,
    Ints,
    bootstrap_mean,
    bootstrap_weights,
    check_rows,
    cluster_numbers,
    mean_interval,
    percentile_interval,
    share_estimate,
    t_quantile,
    wilson,
)

__all__ = [
    "CELLS",
    "LEVEL",
    "RESAMPLES",
    "Estimate",
    "Floats",
    "Interval",
    "Ints",
    "bootstrap_mean",
    "bootstrap_weights",
    "check_rows",
    "cluster_numbers",
    "mean_interval",
    "percentile_interval",
    "share_estimate",
    "t_quantile",
    "wilson",
]
