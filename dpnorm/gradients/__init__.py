"""Per-record gradients from activations and output gradients, captured by tensor hooks."""

from dpnorm.gradients.capture import Capture, captured
from dpnorm.gradients.samples import per_record_gradients

__all__ = ["Capture", "captured", "per_record_gradients"]
