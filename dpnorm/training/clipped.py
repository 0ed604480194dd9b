"""One private step: gradients of records in any of the modes, clipped, added up, with noise."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from opacus.grad_sample import GradSampleModuleExpandedWeights
from torch import Tensor, nn

from dpnorm.gradients import Rows
from dpnorm.norms import released_statistics
from dpnorm.privacy import PrivateOptimizer, Release, StatisticsRelease, hooks_for
from dpnorm.privacy.ghost import GhostLoss
from dpnorm.privacy.record_loss import RecordLoss
from dpnorm.training.augment import ViewsLoss


class ClippedSteps:
    """The steps of a private training, chunk by chunk of a logical batch.

    Args:
        network: that was judged, in training mode.
        rows: which rows of its modules belong to which record.
        mode: "hooks", "lean", "functorch", "ghost" or "ew".
        optimizer: over its trainable parameters.
        noise: the noise multiplier of all that a step releases together.
        clip: the norm to which each record's gradient is clipped.
        ratio: noise of private statistics over that of the gradients.
        expected: records in a batch of all processes together, a constant.
        generator: of the noise.
        distributed: whether other processes hold other records of the batch.
        after_step: called once a step was taken.
    """

    def __init__(
        self,
        network: nn.Module,
        rows: Mapping[str, Rows],
        mode: str,
        optimizer: torch.optim.Optimizer,
        *,
        noise: float,
        clip: float,
        ratio: float,
        expected: float,
        generator: torch.Generator,
        distributed: bool = False,
        after_step: Callable[[], None] | None = None,
    ) -> None:
        self._statistics = None
        if released_statistics(network):
            self._statistics = StatisticsRelease(network, rows)
        self._network: Any
        if mode == "ew":
            self._network = GradSampleModuleExpandedWeights(network)
        else:
            options: dict[str, Any] = {"max_grad_norm": clip} if mode == "ghost" else {}
            self._network = hooks_for(
                network, rows, mode=mode, statistics=self._statistics, **options
            )
        world = torch.distributed.get_world_size() if distributed else 1
        self.optimizer = PrivateOptimizer(
            optimizer,
            noise_multiplier=noise,
            max_grad_norm=clip,
            expected_batch_size=expected / world,
            generator=generator,
            statistics=self._statistics,
            statistics_noise_ratio=ratio,
            ghost=self._network if mode == "ghost" else None,
            distributed=distributed,
            after_step=after_step,
        )
        self._loss: Any = ViewsLoss()
        if mode == "ghost":
            self._loss = GhostLoss(
                RecordLoss(ViewsLoss(), "mean"),
                self._network.clipped_gradients,
                self.optimizer.offer_clipped,
                "mean",
            )

    def releases(self) -> tuple[Release, ...]:
        """What a step releases."""
        return self.optimizer.releases()

    def take(self, chunks: list[tuple[Tensor, Tensor]]) -> float:
        """Takes one step on a logical batch; the sum of the losses of its records.

        Args:
            chunks: (inputs, labels) of the batch, in parts that run at once; none where no record
                was drawn, and then the step releases noise.
        """
        total = 0.0
        if not chunks:
            self.optimizer.take_empty_batch()
            self.optimizer.step()
        for number, (x, y) in enumerate(chunks, start=1):
            self.optimizer.signal_skip_step(do_skip=number < len(chunks))
            if number > 1:
                self.optimizer.zero_grad(set_to_none=True)
            loss = self._loss(self._network(x), y)
            loss.backward()
            total += loss.item() * len(y)
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return total

    def finish(self) -> None:
        """Takes hooks and attributes off the model again."""
        if not isinstance(self._network, GradSampleModuleExpandedWeights):
            self._network.cleanup()
        for parameter in self._network.parameters():
            for name in ("summed_grad", "grad_sample", "_norm_sample", "_forward_counter"):
                parameter.__dict__.pop(name, None)
