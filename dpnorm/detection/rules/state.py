"""DPN2xx: state that data writes."""

from dpnorm.detection.rules.registry import Rule, register

register(
    Rule(
        "DPN202",
        "memory carried from one batch into the next",
        "A record that leaves a trace in the model outside of parameters and buffers, in a list or "
        "an attribute, moves the contributions of the records of later batches.",
        "def forward(self, x):\n    x, self.last = x + self.last, x.detach()\n    return x",
        "Keep no values of records between batches.",
        "Abadi et al., arXiv 1607.00133",
    )
)
register(
    Rule(
        "DPN201",
        "a buffer updated from data in the training forward pass",
        "Buffers are part of what is released with the model. One that is computed from the "
        "records in the forward pass is released without clipping and without noise, even when "
        "every output stays a function of its own record.",
        "nn.InstanceNorm2d(8, track_running_stats=True)  # in training mode",
        "Turn the tracking off (track_running_stats=False), or freeze the buffer.",
        "Abadi et al., arXiv 1607.00133: every use of the data is to be accounted",
    )
)
