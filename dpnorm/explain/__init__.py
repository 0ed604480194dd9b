"""Runnable answers to what people ask about normalization and DP-SGD."""

from dpnorm.explain.explanation import Claim, Explanation, Measured, Picture
from dpnorm.explain.rendering import FORMS
from dpnorm.explain.topics import answer, topics

__all__ = ["answer", "topics", "Explanation", "Measured", "Claim", "Picture", "FORMS"]
