"""One training loop, plain or private."""

from dpnorm.training.config import TrainConfig
from dpnorm.training.history import History
from dpnorm.training.predict import accuracy, predict
from dpnorm.training.result import TrainedModel
from dpnorm.training.train import train

__all__ = ["History", "TrainConfig", "TrainedModel", "accuracy", "predict", "train"]
