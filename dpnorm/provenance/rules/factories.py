"""Factories: tensors made of constants. Of a tensor argument only shape and type matter."""

import numpy as np

from dpnorm.provenance.call import Call
from dpnorm.provenance.lines import given
from dpnorm.provenance.masks import Mask
from dpnorm.provenance.registry import rule


@rule(
    "aten::zeros_like",
    "aten::ones_like",
    "aten::full_like",
    "aten::rand_like",
    "aten::randn_like",
    "aten::new_zeros",
    "aten::new_ones",
    "aten::new_full",
    "aten::_new_zeros_with_same_feature_meta",
    "aten::zeros",
    "aten::ones",
    "aten::full",
    "aten::eye",
    "aten::arange",
    "aten::range",
    "aten::linspace",
    "aten::logspace",
    "aten::rand",
    "aten::randn",
    "aten::randint",
    "aten::randperm",
    "aten::tril_indices",
    "aten::triu_indices",
    "aten::scalar_tensor",
    "aten::hann_window",
    "aten::hamming_window",
    "aten::blackman_window",
    "aten::bartlett_window",
    "aten::kaiser_window",
    "aten::fft_fftfreq",
    "aten::fft_rfftfreq",
    "aten::_efficientzerotensor",
)
def factory(call: Call) -> Mask:
    """No bits, but those of tensors given as numbers (bounds of linspace, a fill value)."""
    return np.asarray(np.uint8(call.bits(*given(call, "start", "end", "fill_value", "high"))))
