"""Several attacks on one pool; those that it cannot serve are told, not hidden."""

from collections.abc import Sequence
from dataclasses import dataclass

from dpnorm.errors import InputError, unknown_name
from dpnorm.leakage.pool import Pool
from dpnorm.leakage.registry import attack, attacks
from dpnorm.leakage.scores import MembershipScores


@dataclass(frozen=True, eq=False)
class Attacked:
    """What came of several attacks.

    Attributes:
        scores: by attack.
        not_run: why, by attack that this pool cannot serve.
    """

    scores: dict[str, MembershipScores]
    not_run: dict[str, str]


def parse_attacks(text: str) -> list[str] | None:
    """Names with commas between them; None for "all".

    Raises:
        InputError: an unknown name, with the nearest match, or none.

    >>> parse_attacks("loss, lira,loss"), parse_attacks("all")
    (['loss', 'lira'], None)
    """
    names = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if names == ["all"]:
        return None
    if not names:
        raise InputError(f"the attacks are {text!r}: name some, as in loss,lira, or all")
    known = attacks()
    for name in names:
        if name not in known:
            raise unknown_name("attack", name, [*known, "all"])
    return names


def attack_all(pool: Pool, names: Sequence[str] | None = None) -> Attacked:
    """Runs attacks with their default options.

    Args:
        pool: the models.
        names: attacks that must work; None for all that do.

    Raises:
        InputError: a named attack is unknown, or the pool does not serve it; or no attack works,
            as on a pool without non-members.
    """
    members = int(pool.keep.sum())
    if members in (0, pool.keep.size):
        raise InputError(
            f"{members} of the pool's {pool.keep.size} targets (model, record) are members; an "
            "attack tells members from non-members, and needs both: draw the membership with "
            "draw_membership"
        )
    scores: dict[str, MembershipScores] = {}
    failed: dict[str, InputError] = {}
    for name in attacks() if names is None else names:
        try:
            scores[name] = attack(pool, name)
        except InputError as error:
            failed[name] = InputError(f"{error}{_remedy(pool)}")
            if names is not None:
                raise failed[name] from error
    if not scores:
        raise next(iter(failed.values()))
    return Attacked(scores, {name: str(error) for name, error in failed.items()})


def _remedy(pool: Pool) -> str:
    if pool.models > 1:
        return ""
    return ". Shadow models come with a pool: train one with dpnorm pool"
