"""From masks to what is wrong: which of the conditions of a proof do not hold."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from dpnorm.detection.isolation import Isolation, ModuleCall, OutputMasks, record_bits, row_bits
from dpnorm.detection.row_plan import row_plan, unit_of
from dpnorm.provenance import Event, Mask
from dpnorm.provenance.masks import any_mixed, bits


@dataclass(frozen=True)
class Doubt:
    """One condition of a proof that does not hold.

    Attributes:
        code: of the rule that it falls under if it is confirmed.
        path: the module concerned, "" for the model.
        message: what the masks say.
        location: file and line, or "".
        fatal: whether it stands in the way of a proof; folded rows do not.
    """

    code: str
    path: str
    message: str
    location: str = ""
    fatal: bool = True


def doubts(isolation: Isolation, *, judged_loss: bool) -> list[Doubt]:
    """Every condition that does not hold, in the order in which a reader wants them."""
    found = [
        *_unknown(isolation),
        *_escapes(isolation),
        *_state(isolation),
        *_memory(isolation),
        *_kept(isolation),
        *_outputs(isolation),
        *_output_gradients(isolation, judged_loss=judged_loss),
        *_rows(isolation),
        *_exposed(isolation),
        *_ignorable(isolation),
    ]
    unique: dict[tuple[str, str, str], Doubt] = {}
    for doubt in found:
        unique.setdefault((doubt.code, doubt.path, doubt.location), doubt)
    return list(unique.values())


def _unknown(isolation: Isolation) -> Iterator[Doubt]:
    for event in isolation.trace.of("unknown"):
        yield Doubt(
            "DPN901",
            event.path or "",
            f"{event.name} has no rule, so its outputs may depend on all of its inputs",
            event.location,
        )


def _escapes(isolation: Isolation) -> Iterator[Doubt]:
    for event in isolation.trace.of("escape"):
        yield Doubt(
            "DPN105",
            event.path or "",
            f"{event.name}: values of {_records(event.bits)} decide what Python does next",
            event.location,
        )


def _ignorable(isolation: Isolation) -> Iterator[Doubt]:
    for event in isolation.trace.of("ignorable"):
        yield Doubt(
            "DPN402",
            event.path or "",
            "its ignore_index hits none of these targets; where it does, the loss is divided by a "
            "count that depends on the records",
            event.location,
            fatal=False,
        )


def _state(isolation: Isolation) -> Iterator[Doubt]:
    for name, found in isolation.state.items():
        path, _, short = name.rpartition(".")
        yield Doubt("DPN201", path, f"{short!r} is written with values of {_records(found)}")


def _memory(isolation: Isolation) -> Iterator[Doubt]:
    """Bits of the first batch in the second."""
    earlier = bits(record_bits(0, isolation.records))
    for output in isolation.outputs:
        if output.first_bit and any(bits(m) & earlier for m in output.outputs + output.gradients):
            yield Doubt("DPN202", "", "the second batch carries values of the first")
            return
    for call in isolation.calls:
        if call.first_bit and any(bits(m) & earlier for m in call.activations + call.gradients):
            yield Doubt("DPN202", call.path, "the second batch carries values of the first")
            return


def _kept(isolation: Isolation) -> Iterator[Doubt]:
    if isolation.kept:
        yield Doubt(
            "DPN202", "", f"values of {_records(isolation.kept)} are kept after the step is over"
        )
    if isolation.silent:
        yield Doubt("DPN902", "", "its output holds no tensor that could be judged")


def _outputs(isolation: Isolation) -> Iterator[Doubt]:
    for output in isolation.outputs:
        for mask in output.outputs:
            if mask.ndim == 0:
                continue  # a loss, which is a mean of all records
            if any_mixed(mask):
                event = _first_mixing(isolation, "forward")
                yield Doubt(
                    "DPN102",
                    event.path or "" if event else "",
                    f"{event.name if event else 'an operator'} mixes records",
                    event.location if event else "",
                )
                return
            if mask.shape[0] == isolation.records and _permuted(mask, output, isolation.records):
                yield Doubt("DPN103", "", "a row of the output belongs to another record")
                return


def _output_gradients(isolation: Isolation, *, judged_loss: bool) -> Iterator[Doubt]:
    if not judged_loss or any(any_mixed(m) for o in isolation.outputs for m in o.outputs if m.ndim):
        return
    for output in isolation.outputs:
        for mask in output.gradients:
            mixed = any_mixed(mask)
            if mixed or (
                mask.ndim
                and mask.shape[0] == isolation.records
                and _permuted(mask, output, isolation.records)
            ):
                event = _first_mixing(isolation, "loss") or _first_mixing(isolation, "backward")
                yield Doubt(
                    "DPN301",
                    "",
                    "the loss gives a record a gradient that depends on other records",
                    event.location if event else "",
                )
                return


def _rows(isolation: Isolation) -> Iterator[Doubt]:
    """Rows at the modules that Opacus samples.

    A module whose rows are not the records' can be covered by one around it, as long as the
    backward pass is torch's own: then it is linear, and the records' gradients add up.
    """
    forward_mixed = any(any_mixed(m) for o in isolation.outputs for m in o.outputs if m.ndim)
    plan = row_plan(isolation)
    for call in isolation.calls:
        if call.container:
            continue
        kind = _row_kind(call, isolation.records)
        if call.inner and not (
            kind == "mixed"
            and any(bits(m) for m in call.activations)
            and any(any_mixed(m) for m in call.activations + call.gradients)
        ):
            continue  # Opacus reads no rows here; only what mixes records in the backward pass
        if kind == "mixed" and not forward_mixed:
            elements = any(any_mixed(m) for m in call.activations + call.gradients)
            if elements and not any(bits(m) for m in call.activations):
                unit = None if isolation.foreign_backward else unit_of(call.path, plan)
                yield Doubt(
                    "DPN502",
                    call.path,
                    "it runs on no record, and one result serves all: it has no gradient of one "
                    f"record{_unless(unit)}",
                    fatal=unit is None,
                )
            elif elements:
                event = _first_mixing(isolation, "forward") or _first_mixing(isolation, "backward")
                where = event.location if event else ""
                yield Doubt("DPN102", call.path, "its rows mix records", where)
            else:
                unit = None if isolation.foreign_backward else unit_of(call.path, plan)
                yield Doubt(
                    "DPN502",
                    call.path,
                    "the rows that Opacus samples here each hold values of several records"
                    + _unless(unit),
                    fatal=unit is None,
                )
        elif kind == "folded":
            yield Doubt("DPN503", call.path, "several rows belong to one record", fatal=False)


def _exposed(isolation: Isolation) -> Iterator[Doubt]:
    """Gradients that code of the user's has mixed before they come to a parameter."""
    for name, mask in isolation.exposed:
        if any_mixed(mask):
            event = _first_mixing(isolation, "backward")
            path, _, own = name.rpartition(".")
            yield Doubt(
                "DPN102",
                path,
                f"the gradient that comes to its parameter {own!r} mixes records",
                event.location if event else "",
            )


def _unless(unit: str | None) -> str:
    return "" if unit is None else f", unless {unit or 'the model'} is run record by record"


def _row_kind(call: ModuleCall, records: int) -> str:
    """ "ordered": row i is record i; "folded": a row a record at most; else "mixed"."""
    masks = [m for m in call.activations + call.gradients if m.ndim]
    lines = record_bits(call.first_bit, records)
    by_length: dict[int, np.ndarray] = {}
    for mask in masks:
        rows = row_bits(mask)
        if not rows.any():
            continue
        previous = by_length.get(len(rows))
        by_length[len(rows)] = rows if previous is None else previous | rows
    kind = "ordered"
    for length, rows in by_length.items():
        if any_mixed(rows):
            return "mixed"
        if length != records or (rows & ~lines).any():
            kind = "folded"
    return kind


def _permuted(mask: Mask, output: OutputMasks, records: int) -> bool:
    return bool((row_bits(mask) & ~record_bits(output.first_bit, records)).any())


def _first_mixing(isolation: Isolation, phase: str) -> Event | None:
    return next((e for e in isolation.trace.of("mixed") if e.phase == phase), None)


def _records(found: int) -> str:
    count = bin(found).count("1")
    return "all records" if count >= 8 else f"{count} record{'s' if count > 1 else ''}"
