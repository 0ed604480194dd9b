"""Which mask belongs to which tensor: by the storage that the tensor's elements live in.

Views, detached copies, tensors that autograd saved and Python wrappers that died and came back all
share a storage, so none of them can lose its mask. A write through a view reaches the base because
both are read from one entry. An entry holds a weak reference to its storage, which keeps the
address from being given to another storage, but not the memory of its elements.
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.lib.stride_tricks import as_strided
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from dpnorm.provenance.masks import Mask, bits, broadcast, clean, compress, core, uniform

_SWEEP = 500  # new entries between two looks for dead ones
_PLAIN = (Tensor, torch.nn.Parameter, torch.nn.Buffer)

Geometry = tuple[tuple[int, ...], tuple[int, ...], int, int]


def geometry(tensor: Tensor) -> Geometry:
    """Sizes, strides, offset, and bytes an element."""
    return (
        tuple(tensor.shape),
        tuple(tensor.stride()),
        int(tensor.storage_offset()),
        tensor.element_size(),
    )


@dataclass
class Entry:
    """The mask of one storage, in the geometry in which it was last written whole."""

    reference: StorageWeakRef
    geometry: Geometry
    mask: Mask
    defined: bool = True
    views: dict[Geometry, Mask] = field(default_factory=dict)


class MaskTable:
    """Masks of tensors. A tensor that was never written has no bits."""

    def __init__(self) -> None:
        self._entries: dict[int, Entry] = {}
        self._made = 0  # entries since masks of dead storages were last dropped

    def read(self, tensor: Tensor) -> Mask:
        """The mask of a tensor, of its shape."""
        entry = self._entries.get(_key(tensor))
        if entry is None:
            return clean(tensor.shape)
        wanted = geometry(tensor)
        if wanted == entry.geometry:
            return entry.mask
        if wanted not in entry.views:
            entry.views[wanted] = _seen_from(entry, wanted, tensor)
        return entry.views[wanted]

    def write(self, tensor: Tensor, mask: Mask) -> None:
        """Replaces the mask of a tensor's elements; other elements of its storage keep theirs."""
        mask = broadcast(mask, tuple(tensor.shape))
        key, wanted = _key(tensor), geometry(tensor)
        entry = self._entries.get(key)
        if entry is None:
            self._made += 1
            if self._made == _SWEEP:
                self._drop_dead_masks()
            reference = StorageWeakRef(tensor.untyped_storage())
            if _covers(tensor):
                self._entries[key] = Entry(reference, wanted, mask)
                return
            entry = Entry(reference, _flat_geometry(tensor), clean(_flat_geometry(tensor)[0]))
            self._entries[key] = entry
        entry.defined = True
        if wanted == entry.geometry:
            entry.mask, entry.views = mask, {}
            return
        if wanted[3] != entry.geometry[3]:  # another element size: what is written may touch all
            entry.mask = entry.mask | np.uint8(bits(mask))
        else:
            flat = _flattened(entry, tensor)
            if _overlaps(tensor):
                flat |= np.uint8(bits(mask))
            else:
                _window(flat, wanted)[...] = mask
            entry.geometry, entry.mask = _flat_geometry(tensor), flat
        entry.views = {}

    def note_view(self, tensor: Tensor, mask: Mask) -> None:
        """Remembers the mask of a view that was computed from its source's."""
        entry = self._entries.get(_key(tensor))
        if entry is not None:
            wanted = geometry(tensor)
            if wanted != entry.geometry:
                entry.views[wanted] = mask

    def add(self, tensor: Tensor, more: int) -> None:
        """Adds bits to every element of a tensor's storage that the tensor may touch."""
        self.write(tensor, self.read(tensor) | np.uint8(more))

    def mark_undefined(self, tensor: Tensor) -> None:
        """Notes that the storage is allocated and holds nothing yet."""
        entry = self._entries.get(_key(tensor))
        if entry is not None:
            entry.defined = False

    def is_defined(self, tensor: Tensor) -> bool:
        """Whether something that was seen has written the storage since it was allocated."""
        entry = self._entries.get(_key(tensor))
        return entry is None or entry.defined

    def alive(self) -> dict[int, int]:
        """The bits of every storage whose memory is still in use, by its address."""
        return {
            key: found
            for key, entry in self._entries.items()
            if not entry.reference.expired() and (found := bits(entry.mask))
        }

    def _drop_dead_masks(self) -> None:
        """Frees the masks of storages that nothing uses; their addresses stay taken."""
        self._made = 0
        for entry in self._entries.values():
            if entry.reference.expired():
                entry.mask, entry.views = clean(()), {}

    def total(self, tensor: Tensor) -> int:
        """The bits of all elements of a tensor."""
        entry = self._entries.get(_key(tensor))
        return 0 if entry is None else bits(self.read(tensor))


def _key(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _covers(tensor: Tensor) -> bool:
    """Whether a tensor holds every element of its storage, each once."""
    size = tensor.untyped_storage().nbytes()
    return tensor.numel() * tensor.element_size() == size and not _overlaps(tensor)


def _overlaps(tensor: Tensor) -> bool:
    """Whether two elements of a tensor may share memory."""
    if tensor.numel() <= 1:
        return False
    reach = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size > 1:
            if stride < reach:
                return True
            reach = stride * (size - 1) + reach
    return False


def _flat_geometry(tensor: Tensor) -> Geometry:
    count = tensor.untyped_storage().nbytes() // tensor.element_size()
    return (count,), (1,), 0, tensor.element_size()


def _window(flat: Mask, view: Geometry) -> Mask:
    """The elements of a flat mask that a geometry names."""
    sizes, strides, offset, _ = view
    return as_strided(flat[offset:], sizes, strides)


def _flattened(entry: Entry, tensor: Tensor) -> Mask:
    """A fresh, writable, flat mask of an entry's storage."""
    flat = np.zeros(_flat_geometry(tensor)[0], np.uint8)
    _window(flat, entry.geometry)[...] = entry.mask
    return flat


def _seen_from(entry: Entry, wanted: Geometry, tensor: Tensor) -> Mask:
    if core(entry.mask).size <= 1 or wanted[3] != entry.geometry[3]:
        return uniform(wanted[0], bits(entry.mask))
    return compress(_window(_flattened(entry, tensor), wanted))


def is_traceable(tensor: Tensor) -> bool:
    """Whether a tensor has plain storage: strided, not sparse, nested or of a foreign subclass."""
    plain = type(tensor) in _PLAIN or isinstance(tensor, torch.nn.Parameter)
    return plain and tensor.layout == torch.strided and not tensor.is_nested
