"""results.json: the whole result of a benchmark as text, and back."""

import dataclasses
import enum
import json
import math
import re
import types
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NoReturn, Union, get_args, get_origin, get_type_hints

from dpnorm.benchmark.results import BenchmarkResult, Curve, Norms, Row, Timing
from dpnorm.benchmark.tables import VOID
from dpnorm.errors import InputError

FORMAT = "dpnorm-benchmark/2"
_NOMINAL = "_nominal"
_VOIDED = ("epsilon", "statement", "statement_text")  # of a void row, what names its epsilon
_QUANTILES = 5


def plain(value: Any) -> Any:
    """Turns a value into what JSON can hold; a number that is not finite becomes a string.

    >>> plain({"epsilon": [float("inf"), 8.0]})
    {'epsilon': ['inf', 8.0]}
    """
    if isinstance(value, enum.Enum):
        return plain(value.value)
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(float(value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value)]
        return {name: plain(getattr(value, name)) for name in names}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, set | frozenset):
        return sorted((plain(item) for item in value), key=str)
    if isinstance(value, Iterable):
        return [plain(item) for item in value]
    return plain(value.item()) if hasattr(value, "item") else str(value)


def json_text(value: Any) -> str:
    """Writes indented JSON with each list of plain values on one line."""
    text = json.dumps(plain(value), indent=2, ensure_ascii=False, allow_nan=False)
    # A JSON string holds no raw line break, so this only meets the layout of lists.
    return re.sub(
        r"\[\n\s*([^\[\]{}]*?)\n\s*\]", lambda m: "[" + re.sub(r"\n\s*", " ", m[1]) + "]", text
    )


def to_json(result: BenchmarkResult) -> str:
    """Writes results.json: the whole result, curves and timings included, as valid JSON.

    Infinite numbers stand as the strings "inf" and "-inf", undefined ones as "nan". The epsilon
    and the statement of a void row are "void"; what the accountant says stands beside them under
    `epsilon_nominal`, `statement_nominal` and `statement_text_nominal`.
    """
    written = plain(result)
    written["rows"] = [_void(row) if row["void"] else row for row in written["rows"]]
    return json_text({"format": FORMAT, **written}) + "\n"


def _void(row: Mapping[str, Any]) -> dict[str, Any]:
    voided: dict[str, Any] = {}
    for name, value in row.items():
        voided[name] = VOID if name in _VOIDED else value
        if name in _VOIDED:
            voided[name + _NOMINAL] = value
    return voided


def _nominal(row: Any) -> Any:
    """Undoes `_void`."""
    if not isinstance(row, dict) or row.get("void") is not True:
        return row
    kept = {name: value for name, value in row.items() if not name.endswith(_NOMINAL)}
    return kept | {name: row[name + _NOMINAL] for name in _VOIDED if name + _NOMINAL in row}


def from_json(text: str) -> BenchmarkResult:
    """Reads what `to_json` wrote.

    Every output of the result is that of the original one. In its free parts (suite, statements,
    findings, bounds) a number that is not finite stays the text that JSON has for it.

    Raises:
        InputError: the text is damaged, of another version, or no result of a benchmark.
    """
    read = _loaded(text)
    if not isinstance(read, dict) or not str(read.get("format", "")).startswith("dpnorm-benchmark"):
        raise InputError(
            "this JSON is no result of a benchmark: the results.json that dpnorm bench run writes "
            "is needed"
        )
    if read["format"] != FORMAT:
        raise InputError(
            f"this result has the format {read['format']!r}, and this version of dpnorm reads "
            f"{FORMAT!r}: run its suite again, which keeps the cells that are still valid"
        )
    fields = {name: value for name, value in read.items() if name != "format"}
    if isinstance(fields.get("rows"), list):
        fields["rows"] = [_nominal(row) for row in fields["rows"]]
    result = _decoded(fields, BenchmarkResult, "the result")
    assert isinstance(result, BenchmarkResult)
    return result


def _loaded(text: str) -> Any:
    def refuse(word: str) -> NoReturn:
        raise ValueError(f"{word} is not JSON")

    try:
        read = json.loads(text, parse_constant=refuse)
        json.dumps(read, ensure_ascii=False).encode()  # a lone surrogate could not be written again
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"this is not the results.json that dpnorm bench wrote ({error}): it is damaged, or "
            "another file; run the suite again, which writes it anew"
        ) from error
    return read


def _damaged(where: str, needed: str, value: Any) -> InputError:
    shown = repr(value)
    shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
    return InputError(
        f"results.json is damaged: {where} is {shown}, where {needed} is needed; run the suite "
        "again, which writes it anew"
    )


def _decoded(value: Any, hint: Any, where: str) -> Any:
    """The value as its type hint wants it."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        (hint,) = (a for a in arguments if a is not type(None))
        return _decoded(value, hint, where)
    if origin is Literal:
        if value not in arguments:
            raise _damaged(where, f"one of {', '.join(map(repr, arguments))}", value)
        return value
    if origin is tuple:
        return _tuple(value, arguments, where)
    if dataclasses.is_dataclass(hint):
        return _fields(value, hint, where)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        if not isinstance(value, dict):
            raise _damaged(where, "an object", value)
        return {k: _decoded(v, arguments[1], f"{where}[{k!r}]") for k, v in value.items()}
    return _scalar(value, hint, where)


def _tuple(value: Any, arguments: tuple[Any, ...], where: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise _damaged(where, "a list", value)
    if arguments[-1] is Ellipsis:
        arguments = arguments[:1] * len(value)
    if len(value) != len(arguments):
        raise _damaged(where, f"a list of {len(arguments)}", value)
    pairs = enumerate(zip(value, arguments, strict=True))
    return tuple(_decoded(item, hint, f"{where}[{i}]") for i, (item, hint) in pairs)


def _fields(value: Any, kind: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise _damaged(where, "an object", value)
    hints = get_type_hints(kind)
    unknown = value.keys() - hints.keys()
    if unknown:
        raise _damaged(where, f"an object with the fields {', '.join(hints)} only", sorted(unknown))
    for field in dataclasses.fields(kind):
        optional = field.default is not dataclasses.MISSING
        optional |= field.default_factory is not dataclasses.MISSING
        if not optional and field.name not in value:
            raise _damaged(f"the field {field.name!r} of {where}", "a value", None)
    made = kind(**{n: _decoded(v, hints[n], f"{where}.{n}") for n, v in value.items()})
    _judge(made, where)
    return made


def _judge(made: Any, where: str) -> None:
    """Refuses what has the right types and cannot be drawn."""
    if isinstance(made, Row | Timing) and not made.target_epsilon > 0:
        raise _damaged(f"{where}.target_epsilon", "a positive number", made.target_epsilon)
    if isinstance(made, Curve) and len(made.fpr) != len(made.tpr):
        raise _damaged(where, "one TPR for each FPR", f"{len(made.fpr)} and {len(made.tpr)}")
    if isinstance(made, Norms):
        for quantiles in (made.rest, made.outliers):
            if len(quantiles) not in (0, _QUANTILES):
                raise _damaged(where, f"none or {_QUANTILES} quantiles", quantiles)


def _scalar(value: Any, hint: type, where: str) -> Any:
    if hint is float:
        if isinstance(value, str) and value in ("inf", "-inf", "nan"):
            return float(value)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return value
        raise _damaged(where, "a number", value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        names = {str: "text", int: "a whole number", bool: "true or false"}
        raise _damaged(where, names[hint], value)
    return value
