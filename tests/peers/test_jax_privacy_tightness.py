"""The same data: our default audit against the best one-run bound of jax-privacy 2.0.0.

Of its strategies for a threshold these take part, each at its own best case:

- Explicit at a quantile of all scores, which no membership enters: sound;
- Split, which picks the threshold on one half of the canaries and judges it on the other: sound;
- Bonferroni, its default. It divides the significance by the number of corners of the ROC's convex
  hull (about 7) and not by the number of thresholds searched; the hull depends on the memberships,
  so that nothing proves it sound. On null scores it erred no more often than it may (3% and 5%
  over 300 data sets of 200 and 1,000 canaries), hence it takes part.

MultiSplit does not: it was never above Split where it was tried, at many times the cost.
"""

import numpy as np
import pytest

from dpnorm.leakage import GuessPlan, Trials, audit, multi_run_gaussian_epsilon

pytestmark = pytest.mark.peers

AUDITS = 20
DELTA = 1e-5
QUANTILES = (0.05, 0.1, 0.2)


def draw(canaries: int, mu: float, seed: int):
    """Scores N(mu, 1) of members and N(0, 1) of the others, each in by a fair coin."""
    generator = np.random.default_rng([82, canaries, int(10 * mu), seed])
    members = generator.random(canaries) < 0.5
    return generator.normal(size=canaries) + mu * members, members


def strategies(scores: np.ndarray, seed: int) -> dict[str, list]:
    found = {"Bonferroni": ["Bonferroni", {}], "Split": ["Split", {"seed": seed}]}
    for share in QUANTILES:
        threshold = float(np.sort(scores)[-round(share * len(scores))])
        found[f"Explicit {share:g}"] = ["Explicit", {"threshold": threshold}]
    return found


def compare(jax_privacy, function: str, method: str, canaries: int, mu: float):
    """Our bounds of the data sets: float[AUDITS], and the peer's by strategy."""
    ours, calls, names = np.empty(AUDITS), [], []
    for seed in range(AUDITS):
        scores, members = draw(canaries, mu, seed)
        plan = GuessPlan.two_sided(canaries)
        ours[seed] = audit(plan, scores, members, delta=DELTA, method=method).value
        sides = [scores[members].tolist(), scores[~members].tolist()]
        options = strategies(scores, seed)
        names = list(options)
        for strategy in options.values():
            calls.append((function, [*sides, 0.05, DELTA], {"threshold_strategy": strategy}))
    theirs = np.array(jax_privacy(calls)).reshape(AUDITS, len(names))
    return ours, dict(zip(names, theirs.T, strict=True))


CASES = [
    (*method, canaries, mu)
    for method in (("one-run", "epsilon_one_run"), ("gaussian", "epsilon_one_run_fdp"))
    for mu in (0.5, 1.0, 1.5, 2.0, 3.0, 4.0)
    for canaries in (500, 1000, 5000)
]


@pytest.mark.parametrize(("method", "function", "canaries", "mu"), CASES)
def test_the_default_audit_is_at_least_as_tight_on_average(
    jax_privacy, capsys, method, function, canaries, mu
):
    # Seeds are fixed: nothing is left to chance. The peer's best strategy is known only afterwards
    ours, theirs = compare(jax_privacy, function, method, canaries, mu)
    best = max(theirs, key=lambda name: theirs[name].mean())
    often = int((ours >= theirs[best] - 1e-6).sum())
    with capsys.disabled():  # whoever runs this wants the figures, not only that they pass
        print(
            f"\n{method:8} m={canaries:<5} mu={mu:<4} ours {ours.mean():.2f}, {best} "
            f"{theirs[best].mean():.2f}; ours at least as tight in {often} of {AUDITS}"
        )
    assert ours.mean() >= theirs[best].mean()


def test_its_gaussian_bound_is_wrong_on_null_scores_where_ours_stays_at_zero(jax_privacy):
    # epsilon_from_gdp takes |mu| of the two Clopper-Pearson limits. At a threshold where both error
    # rates are bounded by nearly 1, mu is far below 0, and its absolute value claims a leakage.
    # Each of our bounds may exceed 0 in 5% of the data sets: in more than 4 of 20 with probability
    # below 0.003.
    calls, ours = [], []
    for seed in range(AUDITS):
        scores, members = draw(1000, 0.0, seed)
        sides = [scores[members].tolist(), scores[~members].tolist()]
        calls.append(("epsilon_from_gdp", [*sides, 0.05, DELTA], {}))
        trials = Trials(
            true_positives=int((scores[members] > 0).sum()),
            members=int(members.sum()),
            false_positives=int((scores[~members] > 0).sum()),
            nonmembers=int((~members).sum()),
        )
        plan = GuessPlan.two_sided(1000)
        ours.append(
            [
                audit(plan, scores, members, delta=DELTA).value,
                audit(plan, scores, members, delta=DELTA, method="gaussian").value,
                # scores drawn one by one are independent trials
                multi_run_gaussian_epsilon(trials, delta=DELTA, independent=True).value,
            ]
        )
    assert min(jax_privacy(calls)) > 1  # measured 1.7 to 5.1
    assert (np.array(ours) > 0).sum(axis=0).max() <= 4
