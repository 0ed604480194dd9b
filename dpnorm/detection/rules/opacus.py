"""DPN5xx: what keeps Opacus from yielding one gradient a record."""

from dpnorm.detection.rules.registry import Rule, register

_SOURCE = "Opacus 1.6.0, grad_sample/grad_sample_module.py; https://github.com/pytorch/opacus"

register(
    Rule(
        "DPN501",
        "an in-place operation that breaks Opacus's hooks",
        "Opacus's backward hooks make the output of a module a view, and autograd refuses to "
        "modify such a view in place: training stops with an error. The guarantee is not harmed.",
        "def forward(self, x):\n    out = self.conv(x)\n    out += x\n    return out",
        "Write the operation out of place (out = out + x, nn.ReLU(inplace=False)), convert the "
        "model with dpnorm.convert, or train with dpnorm.PrivacyEngine, which does not mind.",
        _SOURCE + "/issues/828",
    )
)
register(
    Rule(
        "DPN502",
        "no per-sample gradient for this module",
        "The module runs once for all records, as an embedding of positions does, or on rows that "
        "hold several records. Opacus takes its rows for records: clipping them bounds none.",
        "def forward(self, x):\n    return x + self.positions(torch.arange(x.shape[1]))",
        "Run the module once a record (expand its input to the batch first), freeze it, take "
        "Opacus's own layer where it names one (DPMultiheadAttention, DPLSTM), or train with "
        "dpnorm.PrivacyEngine, which runs the module around it record by record.",
        _SOURCE,
    )
)
register(
    Rule(
        "DPN503",
        "the record axis is folded into another",
        "The module sees several rows a record: windows, or a time axis folded into the batch. "
        "The records are isolated, but Opacus would clip each row as if it were a record, so that "
        "a record with k rows moves the sum by up to k times the bound.",
        "def forward(self, x):  # (B, T, C)\n    return self.linear(x.flatten(0, 1))",
        "Keep the batch as dimension 0 (nn.Linear takes (B, T, C) as it is), or train with "
        "dpnorm.PrivacyEngine, which puts the rows of a record together before it clips.",
        _SOURCE,
    )
)
register(
    Rule(
        "DPN504",
        "a shared module",
        "The same module stands at several places. Its per-sample gradients add up, which Opacus's "
        "hooks do and some of its other modes do not.",
        "net = nn.Sequential(layer, nn.ReLU(), layer)",
        "Nothing with hooks; compare with one record at a time before using another mode.",
        _SOURCE + "/issues/417",
    )
)
register(
    Rule(
        "DPN505",
        "buffers in a trainable module",
        "Opacus refuses a module that has buffers beside trainable parameters, since it cannot "
        "know that they are constant. `check` does: without a DPN2xx finding nothing writes them.",
        "self.scale = nn.Parameter(torch.ones(8))\nself.register_buffer('table', torch.arange(8))",
        "Train with dpnorm.PrivacyEngine, or move the buffers into a module without parameters, "
        "as dpnorm.norms.FrozenBatchNorm does.",
        _SOURCE,
    )
)
