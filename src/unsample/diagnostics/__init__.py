"""What is wrong with a latent, measured: functions of tensors that never see a model.

`diagnose` gives all of it in one table. Every number is read beside its null, the same statistic on true noise of the same
shape and count (`null`). Batches are [B, C, H, W], images lie in [-1, 1], and NaN or infinite values are refused.
"""

from __future__ import annotations

from .alignment import alignment_null, feature_cosine, linear_cka, svcca
from .assignment import Assignment, assignment_accuracy, nearest
from .correlation import MIN_IMAGES, TopK, correlation_floor, patch_correlation, top_k_correlation, top_k_jackknife, top_k_r
from .diagnosis import diagnose, patch_row
from .diversity import Complexity, complexity, group_diversity, pairwise_distance
from .fidelity import mae, mse, psnr, ssim
from .frechet import Frechet, frechet, frechet_distance, frechet_jackknife, frechet_null
from .gaussianity import Moments, kl_per_coordinate, kl_to_normal, moments, pooled_moments
from .geometry import (
    Triangle,
    independent_angles,
    line_distances,
    line_position,
    line_products,
    most_probable_triangle,
    products_to_distances,
    triangle,
)
from .intervals import Interval, Pooled, bootstrap, bootstrap_sums
from .maps import excess_variance, local_correlation
from .normality import QuantileQuantile, ShapiroWilk, normality_rejection, quantile_quantile, rejection_null, shapiro_wilk
from .null import Null, null, nulls, true_noise
from .regions import AreaSums, area_sums, plain_area, plain_mask, resize_mask
from .row import Diagnosis, Row
from .spectrum import (
    Autocorrelation,
    RadialSpectrum,
    autocorrelation,
    autocorrelation_sums,
    low_frequency_null,
    low_frequency_power,
    radial_spectrum,
    spectrum_sums,
)
from .step_error import StepErrors, step_sums

__all__ = [
    "MIN_IMAGES",
    "AreaSums",
    "Assignment",
    "Autocorrelation",
    "Complexity",
    "Diagnosis",
    "Frechet",
    "Interval",
    "Moments",
    "Null",
    "Pooled",
    "QuantileQuantile",
    "RadialSpectrum",
    "Row",
    "ShapiroWilk",
    "StepErrors",
    "TopK",
    "Triangle",
    "alignment_null",
    "area_sums",
    "assignment_accuracy",
    "autocorrelation",
    "autocorrelation_sums",
    "bootstrap",
    "bootstrap_sums",
    "complexity",
    "correlation_floor",
    "diagnose",
    "excess_variance",
    "feature_cosine",
    "frechet",
    "frechet_distance",
    "frechet_jackknife",
    "frechet_null",
    "group_diversity",
    "independent_angles",
    "kl_per_coordinate",
    "kl_to_normal",
    "line_distances",
    "line_position",
    "line_products",
    "linear_cka",
    "local_correlation",
    "low_frequency_null",
    "low_frequency_power",
    "mae",
    "moments",
    "most_probable_triangle",
    "mse",
    "nearest",
    "normality_rejection",
    "null",
    "nulls",
    "pairwise_distance",
    "patch_correlation",
    "patch_row",
    "plain_area",
    "plain_mask",
    "pooled_moments",
    "products_to_distances",
    "psnr",
    "quantile_quantile",
    "radial_spectrum",
    "rejection_null",
    "resize_mask",
    "shapiro_wilk",
    "spectrum_sums",
    "ssim",
    "step_sums",
    "svcca",
    "top_k_correlation",
    "top_k_jackknife",
    "top_k_r",
    "triangle",
    "true_noise",
]
