"""Per-record gradients from activations and output gradients, captured by tensor hooks."""

from dpnorm.gradients.batch import per_record_gradients
from dpnorm.gradients.capture import Capture, captured
from dpnorm.gradients.rows import Rows
from dpnorm.gradients.samples import record_gradients, sampler_of

__all__ = ["Capture", "Rows", "captured", "per_record_gradients", "record_gradients", "sampler_of"]
