import numpy as np
import pytest

from dpnorm.benchmark.pools import run_pools
from dpnorm.errors import InputError
from dpnorm.leakage import open_pools
from tests.benchmark.stored import stored_run


def test_a_benchmark_opens_as_one_pool_an_arm_that_was_trained(tmp_path):
    data, members = stored_run(tmp_path)
    pools = dict(run_pools(tmp_path / "tiny"))
    assert list(pools) == ["digits lenet batch plain", "digits lenet group plain"]
    for name, pool in pools.items():
        for m in range(3):
            member = members[name.split()[2], m]
            assert np.array_equal(pool.logits[m], member.logits)
            assert np.array_equal(pool.keep[m], member.keep)
        assert pool.accuracy == pytest.approx([0.0, 0.1, 0.2])
        assert np.array_equal(pool.labels, data.train.y.numpy())
        assert pool.outlier.sum() == 10
    with pytest.raises(InputError, match="folder of a benchmark"):
        open_pools(tmp_path / "tiny")


def test_a_benchmark_that_is_not_finished_or_damaged_says_so(tmp_path):
    stored_run(tmp_path)
    planned = tmp_path / "tiny" / "run.json"
    text = planned.read_text()
    planned.unlink()
    with pytest.raises(InputError, match=r"holds no run of dpnorm bench: there is no run.json"):
        run_pools(tmp_path / "tiny")
    planned.write_text(text[:40])
    with pytest.raises(InputError, match="not what dpnorm bench run wrote"):
        run_pools(tmp_path / "tiny")
    planned.write_text(text)
    file = min((tmp_path / "cells").iterdir())
    file.write_bytes(file.read_bytes()[:-30])
    with pytest.raises(InputError, match="lacks trained members of 'digits lenet"):
        run_pools(tmp_path / "tiny")
    file.unlink()
    with pytest.raises(InputError, match="lacks trained members of 'digits lenet"):
        run_pools(tmp_path / "tiny")
