"""Connecting to a Ray cluster: one that runs already, or one on this machine for a while."""

import contextlib
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from dpnorm.errors import InputError, MissingExtraError

_QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
_ANSWER = 5.0  # seconds in which an address has to answer
_CONNECT = 60.0  # seconds in which Ray has to connect to it
_OBJECT_STORE = 128 * 2**20  # bytes; what a task gives back is small
_LONGEST = 500  # characters of an error
_PROBE = """
import logging, sys, ray
ray.init(address=sys.argv[1], log_to_driver=False, logging_level=logging.ERROR)
"""


@contextlib.contextmanager
def connected(address: str | None, cpus: int) -> Iterator[None]:
    """Connects to the cluster, or starts one of so many CPUs; ends what it began."""
    import ray

    if ray.is_initialized():
        yield
        return
    try:
        if address is None:
            ray.init(
                address="local",
                num_cpus=cpus,
                include_dashboard=False,
                object_store_memory=_OBJECT_STORE,
                **_QUIET,
            )
        else:
            ray.init(address=address, **_QUIET)
    except Exception as error:  # of many kinds, and none of them ours
        what = "start a Ray cluster" if address is None else f"connect to Ray at {address!r}"
        raise InputError(f"cannot {what}: {one_line(error)}") from error
    try:
        yield
    finally:
        ray.shutdown()


def import_ray(loopback: bool) -> Any:
    """The package.

    Some settings are read when it is imported, and not later: with `loopback`, a cluster that it
    starts listens on the loopback interface only; and what it tells of lost workers, which an
    engine handles, would go to stdout.
    """
    silent = "RAY_DEDUP_LOGS_SKIP_REGEX"
    before = os.environ.get(silent)
    if "ray" not in sys.modules:
        os.environ.setdefault(silent, ".")
        if loopback:
            os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    try:
        import ray
    except ImportError as error:
        raise MissingExtraError("ray", "ray", "the engine 'ray'") from error
    finally:
        if before is None:
            os.environ.pop(silent, None)
    return ray


def require_cluster(address: str) -> None:
    """Tries an address in a process of its own, which Ray may keep waiting, or end.

    Raises:
        InputError: no cluster answers there, or it does not take us.
    """
    wanted = "HOST:PORT of a running Ray cluster, or 'auto'"
    if address != "auto":
        host, mark, port = address.rpartition(":")
        if not (host and mark and port.isdecimal()) or "/" in host:
            raise InputError(f"the address {address!r} of Ray: needed is {wanted}")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER).close()
        except (OSError, OverflowError) as error:
            raise InputError(
                f"no Ray cluster answers at {address!r} ({one_line(error)}): needed is {wanted}"
            ) from None
    try:
        tried = subprocess.run(
            [sys.executable, "-c", _PROBE, address],
            capture_output=True,
            text=True,
            timeout=_CONNECT,
        )
    except subprocess.TimeoutExpired:
        raise InputError(
            f"what answers at {address!r} did not connect in {_CONNECT:g} s: is it a Ray cluster "
            f"of the same version of Ray? Needed is {wanted}"
        ) from None
    if tried.returncode:
        said = tried.stderr.strip().splitlines() or ["it ended without a word"]
        raise InputError(
            f"cannot connect to Ray at {address!r}: {said[-1]} (needed is {wanted}, and this "
            "machine must be one of its nodes)"
        )


def one_line(error: object) -> str:
    """An error in one line."""
    name = type(error).__name__
    return " ".join(f"{name}: {error}".split())[:_LONGEST]
