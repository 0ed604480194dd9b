"""What is compared with what. A new comparison is one function here and no edit elsewhere."""

import copy
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import dpnorm
from dpnorm.benchmark.speed.measure import Run
from dpnorm.benchmark.speed.pools import pool_of
from dpnorm.benchmark.speed.sizes import CLASSES, Sizes, Subject
from dpnorm.benchmark.speed.steps import (
    AUTO,
    MODES,
    OPACUS_MODES,
    SEED,
    opacus_step,
    plain_step,
    private_step,
    private_steps,
)
from dpnorm.parallel import cores

_CHECKED = 4  # records that `check` and the forward pass beside it are given


@dataclass(frozen=True)
class Pair:
    """What is timed in turns, ready to run.

    Attributes:
        numerator: of the ratio.
        denominator: of it.
        note: what a reader must know of this pair.
    """

    numerator: Run
    denominator: Run
    note: str = ""


@dataclass(frozen=True)
class Comparison:
    """Two things of one network whose costs are compared.

    Attributes:
        measured: the numerator in words.
        against: the denominator in words.
        prepare: makes both ready; a DpnormError says why they do not apply.
        memory: whether this process alone does the work, so that its memory tells.
    """

    measured: str
    against: str
    prepare: Callable[[], Pair]
    memory: bool = True


class Prepared:
    """A subject's network, its conversions and a batch, on a device; each made when first used.

    Where one cannot be made (torchvision is missing, a layer cannot be converted), what needs it
    raises the DpnormError that says so.
    """

    def __init__(self, subject: Subject, sizes: Sizes, device: torch.device) -> None:
        self.subject, self.sizes, self.device = subject, sizes, device

    @functools.cached_property
    def x(self) -> Tensor:
        """Random records, (B, C, H, W)."""
        generator = torch.Generator().manual_seed(SEED)
        x = torch.randn(self.subject.batch, *self.subject.shape, generator=generator)
        return x.to(self.device)

    @functools.cached_property
    def y(self) -> Tensor:
        """Their labels, (B,)."""
        return torch.arange(len(self.x), device=self.device) % CLASSES

    @functools.cached_property
    def network(self) -> nn.Module:
        """With BatchNorm, whose statistics were measured, as a trained one's were."""
        torch.manual_seed(SEED)
        channels, height, width = self.subject.shape
        network = dpnorm.models.build(
            self.subject.model,
            in_channels=channels,
            num_classes=CLASSES,
            image_size=(height, width),
        )
        network = network.to(self.device).train()
        with torch.no_grad():
            network(self.x)
        return network

    @functools.cached_property
    def converted(self) -> nn.Module:
        """With GroupNorm."""
        return self.to("group")

    def to(self, variant: str) -> nn.Module:
        """The network converted."""
        return dpnorm.convert(self.network, to=variant).model.train()

    @functools.cached_property
    def fastest(self) -> str:
        """The mode that `grad_sample_mode="auto"` chooses here."""
        return private_steps(self.converted, self.x, AUTO).mode

    def private_step(self, mode: str) -> tuple[Run, str]:
        """A private step of the converted network, and which mode "auto" is."""
        note = f"auto chose {self.fastest}" if mode == AUTO else ""
        chosen = self.fastest if mode == AUTO else mode
        return private_step(self.converted, self.x, self.y, chosen), note


Comparisons = Callable[[Prepared], Iterator[Comparison]]
COMPARISONS: dict[str, Comparisons] = {}


def comparison(name: str) -> Callable[[Comparisons], Comparisons]:
    """Registers what yields the comparisons that `--only NAME` asks for."""

    def add(found: Comparisons) -> Comparisons:
        COMPARISONS[name] = found
        return found

    return add


@comparison("check")
def check_against_forward(given: Prepared) -> Iterator[Comparison]:
    """`check` of the network as it came, and converted, against a forward pass of it."""

    def prepare(name: str) -> Pair:
        model = given.network if name == "batch" else given.converted
        x = given.x[:_CHECKED]

        def forward() -> None:
            with torch.no_grad():
                model(x)

        return Pair(lambda: dpnorm.check(model, x), forward, f"on {len(x)} records")

    for name in ("batch", "group"):
        yield Comparison(f"check, {name}", "forward pass", functools.partial(prepare, name))


@comparison("convert")
def convert_against_deepcopy(given: Prepared) -> Iterator[Comparison]:
    """`convert` to group, with moments matched, against `copy.deepcopy`."""

    def prepare() -> Pair:
        network = given.network
        return Pair(lambda: dpnorm.convert(network, to="group"), lambda: copy.deepcopy(network))

    yield Comparison("convert to group", "deepcopy", prepare)


@comparison("step")
def private_against_plain(given: Prepared) -> Iterator[Comparison]:
    """A private step in each mode against a plain one of the same converted network."""

    def prepare(mode: str) -> Pair:
        step, note = given.private_step(mode)
        return Pair(step, plain_step(given.converted, given.x, given.y), note)

    for mode in (*MODES, AUTO):
        yield Comparison(f"private step, {mode}", "plain step", functools.partial(prepare, mode))


@comparison("opacus")
def private_against_opacus(given: Prepared) -> Iterator[Comparison]:
    """A private step against one of stock Opacus: "lean" against each mode, "auto" against "hooks".

    Of the other modes each is compared with its namesake.
    """

    def prepare(mode: str, theirs: str) -> Pair:
        step, note = given.private_step(mode)
        return Pair(step, opacus_step(given.converted, given.x, given.y, theirs), note)

    pairs = [
        *[("lean", theirs) for theirs in OPACUS_MODES],
        *[(mode, mode) for mode in OPACUS_MODES],
        (AUTO, OPACUS_MODES[0]),
    ]
    for mode, theirs in pairs:
        yield Comparison(
            f"private step, {mode}", f"Opacus, {theirs}", functools.partial(prepare, mode, theirs)
        )


@comparison("private-batch")
def private_batch_against_group(given: Prepared) -> Iterator[Comparison]:
    """A private step with private statistics against one with GroupNorm, in the same mode."""

    def prepare(mode: str) -> Pair:
        step = private_step(given.to("private-batch"), given.x, given.y, mode)
        return Pair(step, private_step(given.converted, given.x, given.y, mode))

    for mode in MODES:
        yield Comparison(
            f"private-batch, {mode}", f"group, {mode}", functools.partial(prepare, mode)
        )


@comparison("pool")
def pool_against_loop(given: Prepared) -> Iterator[Comparison]:
    """`train_pool` against a loop over the same models."""

    def prepare() -> Pair:
        subject, sizes = given.subject, given.sizes
        pool = pool_of(subject, sizes.pool_models, sizes.pool_epochs)
        note = (
            f"{pool.size} models, {pool.lesson}; the "
            f"pool has {min(cores(), pool.size)} processes of one thread, the loop {cores()} "
            "threads; what processes import is paid once and not counted"
        )
        return Pair(pool.at_once, pool.one_by_one, note)

    yield Comparison("pool", "loop over models", prepare, memory=False)
