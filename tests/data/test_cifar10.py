import numpy as np
import pytest
import torch

from dpnorm.data import load
from dpnorm.errors import InputError


def write(folder, batches=2, records=60, seed=0):
    """Files of the binary version, with random pixels: what they hold, batch by batch."""
    generator = np.random.default_rng([91, seed])
    folder.mkdir(exist_ok=True)
    names = [*(f"data_batch_{i + 1}.bin" for i in range(batches)), "test_batch.bin"]
    rows = {}
    for name in names:
        rows[name] = generator.integers(0, 256, size=(records, 3073), dtype=np.uint8)
        rows[name][:, 0] = generator.permutation(np.arange(records) % 10)
        (folder / name).write_bytes(rows[name].tobytes())
    return rows


def test_each_image_keeps_its_label_and_its_planes(tmp_path):
    rows = write(tmp_path)
    data = load(f"cifar10:{tmp_path}")
    assert (len(data.train), len(data.public), len(data.test)) == (108, 12, 60)
    assert data.shape == (3, 32, 32)
    assert torch.bincount(data.public.y).max() <= 2  # balanced
    test = rows["test_batch.bin"]
    assert torch.equal(data.test.y, torch.from_numpy(test[:, 0].astype(np.int64)))
    # red, green, blue planes, each row by row
    pixel = test[7, 1 + 1024 + 32 * 5 + 9] / 127.5 - 1
    assert float(data.test.x[7, 1, 5, 9]) == pytest.approx(pixel, abs=1e-6)
    written = np.concatenate([rows["data_batch_1.bin"], rows["data_batch_2.bin"]])
    expected = sorted(row.tobytes() for row in written)
    both = [
        bytes([int(y), *((x.flatten() + 1) * 127.5).round().to(torch.uint8).tolist()])
        for part in (data.train, data.public)
        for x, y in zip(part.x, part.y, strict=True)
    ]
    assert sorted(both) == expected
    assert load(f"cifar10:{tmp_path}").fingerprint() == data.fingerprint()


def test_what_is_no_cifar10_is_one_clear_error(tmp_path):
    with pytest.raises(InputError, match=r"data_batch_1.bin to .* unpack the binary version"):
        load(f"cifar10:{tmp_path}")
    write(tmp_path)
    file = tmp_path / "data_batch_2.bin"
    whole = file.read_bytes()
    for content in (b"", whole[:-1], b"\x0b" + whole[1:]):
        file.write_bytes(content)
        with pytest.raises(InputError, match=r"data_batch_2.bin.*no batch of the binary version"):
            load(f"cifar10:{tmp_path}")
