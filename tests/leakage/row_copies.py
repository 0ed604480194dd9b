"""A row's part of a batch gradient by hand: each row gets its own copy of every parameter."""

import torch
import torch.nn.functional as F
from torch import nn


class Mlp(nn.Module):
    """Linear, BatchNorm, ReLU, linear; `by_rows` gives each row a copy of every parameter."""

    def __init__(self):
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(5, 7), nn.BatchNorm1d(7), nn.Linear(7, 3)
        nn.init.uniform_(self.norm.weight, 0.5, 1.5)

    def forward(self, x):
        return self.last(F.relu(self.norm(self.first(x))))

    def by_rows(self, x, y):
        """float[B, parameters]: the gradient of the summed loss for each row's own copy."""
        copies = [p.detach().expand(len(x), *p.shape).clone() for p in self.parameters()]
        w1, b1, scale, shift, w2, b2 = (copy.requires_grad_() for copy in copies)
        hidden = torch.einsum("bi,boi->bo", x, w1) + b1
        normal = (hidden - hidden.mean(0)) / (hidden.var(0, unbiased=False) + self.norm.eps).sqrt()
        output = torch.einsum("bi,boi->bo", F.relu(normal * scale + shift), w2) + b2
        loss = F.cross_entropy(output, y, reduction="sum")
        gradients = torch.autograd.grad(loss, [w1, b1, scale, shift, w2, b2])
        return torch.cat([g.flatten(1) for g in gradients], 1)
