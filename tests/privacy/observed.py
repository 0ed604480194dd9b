"""What an attacker sees of steps of the engine, without and with a canary in the data set.

The attacker knows the code, the weights, every record, and which of the other records are in each
batch; only whether the canary is in the data set is hidden, and which batches drew it. What is
released is compared with what the same code releases without noise: the noise-free release of the
others is subtracted, and what is left is divided by the noise that is claimed.
"""

import itertools
import math
from dataclasses import dataclass
from unittest.mock import patch

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import dpnorm
from dpnorm.gradients.factors import dense
from dpnorm.norms import PrivateBatchNorm1d, ReleasedStatistics, released_statistics
from dpnorm.privacy.joint import split_noise

WIDTH, CLASSES, OTHERS, BATCH = 8, 3, 4, 3
CANARY = OTHERS  # its index
RATE, EXPECTED = 1 / 2, 2  # of the engine, with 4 records and with 5
CLIP, STATISTICS_CLIP = 0.1, 1.0
LAYERS = 2


def net(statistics: type[ReleasedStatistics] = ReleasedStatistics) -> nn.Module:
    """A network with two layers of private statistics, which may be of a wrong kind."""
    torch.manual_seed(5)
    model = nn.Sequential(
        PrivateBatchNorm1d(WIDTH, affine=False),
        nn.Linear(WIDTH, WIDTH),
        PrivateBatchNorm1d(WIDTH, affine=False),
        nn.Linear(WIDTH, CLASSES),
    )
    put(statistics, model)
    return model


def put(statistics: type[ReleasedStatistics], model: nn.Module) -> None:
    """Makes the statistics of a model's layers of another kind."""
    for layer in released_statistics(model).values():
        layer.__class__ = statistics


def records():
    """Four ordinary records, and a canary far away."""
    generator = torch.Generator().manual_seed(6)
    x = torch.randn(OTHERS + 1, WIDTH, generator=generator)
    x[CANARY] = 20.0 * x[CANARY].sign()
    return x, torch.arange(OTHERS + 1) % CLASSES


@dataclass(frozen=True)
class Setting:
    """What is audited.

    Attributes:
        statistics: of the layers, put in place once the engine has judged the model.
        noise: noise multiplier of a step.
        ratio: of the statistics' noise to the gradients'.
        steps: in a trial.
        processes: 2 for one that holds all records, beside one that draws none.
        live: run the model in each trial. Otherwise it runs once for each batch that can be drawn,
            and later trials take its gradients and statistics, which are the same, from there.
        mode: of gradient sampling.
    """

    statistics: type[ReleasedStatistics] = ReleasedStatistics
    noise: float = 0.4
    ratio: float = 1.0
    steps: int = 1
    processes: int = 1
    live: bool = False
    mode: str = "hooks"


class Training:
    """A training by the engine whose learning rate is 0, and whose statistics are put back.

    Args:
        setting: what is trained.
        canary: whether it is in the data set.
        noise: noise multiplier.
        seed: of sampling and noise.
    """

    def __init__(self, setting: Setting, *, canary: bool, noise: float, seed: int) -> None:
        self._x, self._y = (t[: OTHERS + canary] for t in records())
        self._setting = setting
        self._first = self._made(noise, seed + 10)[1] if setting.processes == 2 else None
        # whose engine is asked for the account: its loader draws the batches
        self._model, self._optimizer, self._loader = self._made(noise, seed)
        self._statistics = self._optimizer.statistics
        if self._first is not None:
            for rank, optimizer in enumerate((self._first, self._optimizer)):
                optimizer.rank, optimizer.world_size = rank, 2
                optimizer.expected_batch_size = EXPECTED / 2
        self._kept: dict[tuple[int, ...], tuple] = {}
        self._buffers = [(b, b.clone()) for b in self._model.buffers()]
        self._tap()

    def _made(self, noise, seed):
        model = net()
        self._engine = dpnorm.PrivacyEngine()
        made = self._engine.make_private(
            module=model,
            optimizer=torch.optim.SGD(model.parameters(), lr=0.0),
            data_loader=DataLoader(TensorDataset(self._x, self._y), batch_size=BATCH),
            noise_multiplier=noise,
            max_grad_norm=CLIP,
            criterion=nn.CrossEntropyLoss(),
            statistics_noise_ratio=self._setting.ratio,
            statistics_clip=STATISTICS_CLIP,
            seed=seed,
            grad_sample_mode=self._setting.mode,
        )
        put(self._setting.statistics, model)
        assert made[1].expected_batch_size == EXPECTED
        assert made[2].batch_sampler.sample_rate == RATE
        return made

    def _tap(self) -> None:
        """Reads what is published, and what the model offers."""
        publish, offer = self._statistics.publish, self._statistics.offer

        def published(noisy, *, expected, sigma):
            self._published = noisy / expected
            publish(noisy, expected=expected, sigma=sigma)

        def offered(vectors, *, beside):
            self._offered = vectors
            offer(vectors, beside=beside)

        self._statistics.publish, self._statistics.offer = published, offered

    def batches(self) -> list[tuple[int, ...]]:
        """The first batches of a new pass over the data."""
        return [tuple(b) for b in itertools.islice(self._loader.batch_sampler, self._setting.steps)]

    def afresh(self) -> None:
        """What a new pass begins with."""
        self._optimizer.begin_pass()

    def accounted(self) -> list[tuple[float, float, int]]:
        """What the engine has accounted."""
        return self._engine.accountant.history

    def release(self, batch) -> np.ndarray:
        """The sums that a step on a batch releases, of gradients and statistics, as one vector."""
        self._optimizer.zero_grad()
        self._feed(batch)
        if self._first is None:
            self._optimizer.step()
        else:
            self._step_of_two()
        for buffer, initial in self._buffers:
            buffer.copy_(initial)
        parts = [p.grad.flatten() for p in self._optimizer.params]
        return (torch.cat([*parts, self._published]) * EXPECTED).numpy()

    def _feed(self, batch) -> None:
        if not batch:
            self._optimizer.take_empty_batch()
            return
        kept = None if self._setting.live else self._kept.get(batch)
        if kept is None:
            rows = list(batch)
            nn.functional.cross_entropy(self._model(self._x[rows]), self._y[rows]).backward()
            samples = [dense(p.grad_sample).clone() for p in self._optimizer.params]
            self._kept[batch] = samples, self._offered
            return
        for p, sample in zip(self._optimizer.params, kept[0], strict=True):
            p.grad_sample = sample.detach()
        self._statistics.offer(kept[1], beside=False)

    def _step_of_two(self) -> None:
        """A step of the second of two processes; the first drew no record."""
        self._first.zero_grad()
        self._first.take_empty_batch()
        self._first.pre_step()
        of_first = [*(p.grad for p in self._first.params), self._first._noisy_statistics]
        with patch("torch.distributed.all_reduce", lambda own: own.add_(of_first.pop(0))):
            self._optimizer.step()


def clipped_by_hand(index: int) -> np.ndarray:
    """What a record adds to the release of a correct implementation: clipped, without noise."""
    model, (x, y) = net(), records()
    seen = []
    for layer in (model[0], model[2]):
        layer.statistics.register_forward_hook(lambda m, a, out: seen.append(out.detach()[0]))
    loss = nn.functional.cross_entropy(model(x[index : index + 1]), y[index : index + 1])
    gradient = torch.autograd.grad(loss, list(model.parameters()))
    gradient = torch.cat([g.flatten() for g in gradient])
    said = torch.cat([t for out in seen for t in (out, out.square() - 1)])
    said = said / math.sqrt(2 * WIDTH * LAYERS)
    clips = ((gradient, CLIP), (said, STATISTICS_CLIP))
    return torch.cat([part * min(1.0, clip / part.norm().item()) for part, clip in clips]).numpy()


GRADIENT = sum(p.numel() for p in net().parameters())
STATISTICS = 2 * WIDTH * LAYERS
PARTS = {
    "both": slice(None),
    "the gradient": slice(GRADIENT),
    "the statistics": slice(GRADIENT, None),
}


def stated_noise(noise: float, ratio: float) -> np.ndarray:
    """The standard deviation of each number that is released, as it is claimed."""
    gradient, statistics = split_noise(noise, ratio)
    parts = (GRADIENT, gradient * CLIP), (STATISTICS, statistics * STATISTICS_CLIP)
    return np.concatenate([np.full(size, std) for size, std in parts])


@dataclass(frozen=True)
class Trials:
    """What an attacker has seen.

    Attributes:
        left: (trials, steps, D) releases less those of the other records, in standard deviations.
        moves: (trials, 2^steps, steps, D) by how much the code moves the noise-free release, for
            each way to draw the canary (none in the first one), in standard deviations.
        others: (trials, steps) how many other records were in the batch.
    """

    left: np.ndarray
    moves: np.ndarray
    others: np.ndarray


class Observer:
    """Runs trials of a setting, and the same code without noise beside them."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self._noise = stated_noise(setting.noise, setting.ratio)
        self._quiet = Training(setting, canary=True, noise=0.0, seed=1)
        self._known: dict[tuple, np.ndarray] = {}

    def quiet(self, batches) -> np.ndarray:
        """The noise-free releases of these batches: (steps, D)."""
        self._quiet.afresh()
        return np.stack([self._quiet.release(batch) for batch in batches])

    def _ways(self, others) -> np.ndarray:
        """The noise-free releases for each way to draw the canary: (2^steps, steps, D)."""
        if others not in self._known:
            self._known[others] = np.stack(
                [
                    self.quiet([b + (CANARY,) * d for b, d in zip(others, drawn, strict=True)])
                    for drawn in itertools.product((0, 1), repeat=len(others))
                ]
            )
        return self._known[others]

    def trials(self, count: int, *, canary: bool, seed: int) -> Trials:
        """Independent trials, with the canary in the data set or not."""
        training = Training(self.setting, canary=canary, noise=self.setting.noise, seed=seed)
        seen, ways, drawn = [], [], []
        for _ in range(count):
            batches = training.batches()
            seen.append(np.stack([training.release(batch) for batch in batches]))
            others = tuple(tuple(i for i in batch if i != CANARY) for batch in batches)
            ways.append(self._ways(others))
            drawn.append([len(batch) for batch in others])
        expected = [(self.setting.noise, RATE, count * self.setting.steps)]
        assert training.accounted() == expected
        centres = np.stack(ways).astype(np.float64)
        left = (np.stack(seen) - centres[:, 0]) / self._noise
        moves = (centres - centres[:, :1]) / self._noise
        return Trials(left, moves, np.array(drawn))
