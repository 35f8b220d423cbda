"""What is wrong with a latent, measured: functions of tensors that never see a model.

`diagnose` gives all of it in one table. Every number is read beside its null, the same statistic on true noise of the same
shape and count (`null`). Batches are [B, C, H, W], images lie in [-1, 1], and NaN or infinite values are refused.
"""

from __future__ import annotations

from .correlation import (
    MIN_IMAGES,
    TopK,
    correlation_floor,
    patch_correlation,
    top_k_correlation,
    top_k_jackknife,
    top_k_r,
)
from .fidelity import mae, mse, psnr, ssim
from .gaussianity import Moments, kl_per_coordinate, kl_to_normal, moments, pooled_moments
from .intervals import Interval, Pooled, bootstrap, bootstrap_sums
from .maps import excess_variance, local_correlation
from .null import Null, null, nulls, true_noise
from .regions import AreaSums, area_sums, plain_mask, resize_mask
from .summary import Diagnosis, Row, diagnose

__all__ = [
    "MIN_IMAGES",
    "AreaSums",
    "Diagnosis",
    "Interval",
    "Moments",
    "Null",
    "Pooled",
    "Row",
    "TopK",
    "area_sums",
    "bootstrap",
    "bootstrap_sums",
    "correlation_floor",
    "diagnose",
    "excess_variance",
    "kl_per_coordinate",
    "kl_to_normal",
    "local_correlation",
    "mae",
    "moments",
    "mse",
    "null",
    "nulls",
    "patch_correlation",
    "plain_mask",
    "pooled_moments",
    "psnr",
    "resize_mask",
    "ssim",
    "top_k_correlation",
    "top_k_jackknife",
    "top_k_r",
    "true_noise",
]
