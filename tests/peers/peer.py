"""Answers for jax-privacy, run by the Python of its own environment: JSON in, JSON out.

stdin holds a list of calls [name, arguments, options]; stdout gets the list of their results.
"""

import importlib.util
import json
import sys
from types import ModuleType
from typing import Any


def load_auditing() -> ModuleType:
    """The module jax_privacy.auditing alone: the package around it would import JAX."""
    package = importlib.util.find_spec("jax_privacy")
    assert package is not None
    assert package.submodule_search_locations
    path = f"{package.submodule_search_locations[0]}/auditing.py"
    spec = importlib.util.spec_from_file_location("peer_auditing", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


def answer(auditing: ModuleType, name: str, arguments: list[Any], options: dict[str, Any]) -> float:
    """One result.

    A private function of counts takes the arguments as they are. A method of the auditor takes
    the scores of the members and of the others first, and may name a strategy for its threshold
    as [class, options].
    """
    if name.startswith("_"):
        return float(getattr(auditing, name)(*arguments, **options))
    members, others, *rest = arguments
    if "threshold_strategy" in options:
        kind, settings = options["threshold_strategy"]
        strategy = getattr(auditing, kind)(**settings)
        options = {**options, "threshold_strategy": strategy}
    auditor = auditing.CanaryScoreAuditor(members, others)
    return float(getattr(auditor, name)(*rest, **options))


def main() -> None:
    """Reads the calls and writes the results."""
    auditing = load_auditing()
    json.dump([answer(auditing, *call) for call in json.load(sys.stdin)], sys.stdout)


if __name__ == "__main__":
    main()
