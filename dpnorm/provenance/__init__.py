"""Which records each number depends on: masks carried through forward, loss and backward."""

from dpnorm.provenance.escapes import EscapeWatch, eager
from dpnorm.provenance.masks import Mask
from dpnorm.provenance.tracer import Event, RecordTracer, Trace

__all__ = ["EscapeWatch", "Event", "Mask", "RecordTracer", "Trace", "eager"]
