import pytest
import torch
from torch import nn

from dpnorm.privacy.record_loss import RecordLoss


@pytest.mark.parametrize("records", [0, 1, 5])
@pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 2)])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_there_is_one_loss_a_record_of_no_records_none(reduction, shape, records):
    loss = RecordLoss(nn.MSELoss(reduction=reduction), reduction)
    loss.reduction = "none"
    output = torch.randn(records, *shape)
    found = loss(output, torch.zeros_like(output))
    own = [getattr(row.square(), reduction)() for row in output]
    expected = torch.stack(own) if records else torch.zeros(0)
    torch.testing.assert_close(found, expected)
