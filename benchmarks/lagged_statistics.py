"""What BatchNorm learns when no gradient goes through its statistics, without any privacy.

    python benchmarks/lagged_statistics.py

Test accuracy of vgg-small on digits after 8 epochs (batches of 128, SGD with momentum 0.9, a
batch's gradient clipped to norm 1, one seed), with BatchNorm; with the exact statistics of each
batch as constants; and with statistics that lag behind, at two values of record_share. All are
evaluated with the statistics of the test records.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import dpnorm
from dpnorm.norms import FrozenBatchNorm

EPOCHS, BATCH, RATES, LAG = 8, 128, (0.02, 0.1), 0.3


class Constants(FrozenBatchNorm):
    """Normalizes by statistics of the batch that are constants, those of this one or older ones."""

    lagged = False
    started = False

    def forward(self, x: Tensor) -> Tensor:
        flat = x.detach().transpose(0, 1).flatten(1)
        mean, var = flat.mean(1), flat.var(1, correction=0)
        own = self.statistics
        if not self.lagged or not self.started:
            own.running_mean.copy_(mean)
            own.running_var.copy_(var)
        self.started = True
        out = super().forward(x)
        own.running_mean.lerp_(mean, LAG)
        own.running_var.lerp_(var, LAG)
        return out


def exchange(model: nn.Module, *, lagged: bool, share: float) -> None:
    """Puts `Constants` in the place of every BatchNorm."""
    for name, child in list(model.named_children()):
        if isinstance(child, (nn.BatchNorm1d, nn.BatchNorm2d)):
            layer = Constants(child.num_features, record_share=share)
            layer.lagged = lagged
            setattr(model, name, layer)
        else:
            exchange(child, lagged=lagged, share=share)


def accuracy(kind: str, rate: float) -> float:
    """Trains one network; its accuracy on the test records."""
    data = dpnorm.data.load("digits")
    torch.manual_seed(0)
    model = dpnorm.models.build("vgg-small", in_channels=1, num_classes=data.num_classes).train()
    if kind != "BatchNorm":
        exchange(model, lagged="lagged" in kind, share=0.5 if "0.5" in kind else 0.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)
    for _ in range(EPOCHS):
        for index in torch.randperm(len(data.train)).split(BATCH):
            optimizer.zero_grad()
            F.cross_entropy(model(data.train.x[index]), data.train.y[index]).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
    for layer in model.modules():
        if isinstance(layer, Constants):
            layer.lagged = False
    with torch.no_grad():
        return (model(data.test.x).argmax(1) == data.test.y).double().mean().item()


def main() -> None:
    torch.set_num_threads(1)
    print("| statistics | " + " | ".join(f"lr {rate}" for rate in RATES) + " |")
    print("|---|" + "---:|" * len(RATES))
    for kind in ("BatchNorm", "exact, constant", "lagged", "lagged, record_share 0.5"):
        found = " | ".join(f"{100 * accuracy(kind, rate):.1f}%" for rate in RATES)
        print(f"| {kind} | {found} |", flush=True)


if __name__ == "__main__":
    main()
