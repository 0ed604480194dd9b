"""Summaries of scores: every number with its interval, or the reason why there is none."""

import json

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import balanced_accuracy_score, roc_auc_score, roc_curve

from dpnorm.errors import InputError
from dpnorm.leakage import Estimate, MembershipScores, Unresolved, draw_membership
from dpnorm.leakage.summary import Absent


def planted(models: int = 8, records: int = 300, shift: float = 1.0) -> MembershipScores:
    generator = np.random.default_rng([61, models, records])
    keep = draw_membership(records, models, 1)
    scores = generator.normal(size=keep.shape) + shift * keep
    return MembershipScores("planted", scores, keep, np.arange(records) % 10 == 0)


def test_every_number_of_a_summary_equals_scikit_learn():
    scores = planted()
    labels = np.arange(300) % 3
    summary = scores.summary(labels)
    masks = {"all": np.ones(300, bool), "outliers": scores.outlier}
    masks |= {f"class {k}": labels == k for k in range(3)}
    assert [g.name for g in summary.groups] == ["all", "class 0", "class 1", "class 2", "outliers"]
    for name, mask in masks.items():
        member, values = scores.keep[:, mask].ravel(), scores.scores[:, mask].ravel()
        group = summary.group(name)
        fpr, tpr, cuts = roc_curve(member, values, drop_intermediate=False)
        best = max(balanced_accuracy_score(member, values >= cut) for cut in cuts[1:])
        assert (group.members, group.others) == (member.sum(), (~member).sum())
        assert float(group.auc) == pytest.approx(roc_auc_score(member, values))
        assert float(group.balanced_accuracy) == pytest.approx(best)
        assert float(group.advantage) == pytest.approx((tpr - fpr).max())
        assert float(group.tpr[0.1]) == pytest.approx(tpr[fpr <= 0.1].max())


def test_the_intervals_are_those_of_each_number_alone():
    scores = planted(records=60)
    everything = scores.summary().group("all")
    assert everything.auc == scores.auc
    assert everything.balanced_accuracy == scores.balanced_accuracy
    assert everything.advantage == scores.advantage
    assert everything.tpr[0.1] == scores.tpr_at_fpr(0.1)
    assert everything.tpr[0.01] == scores.tpr_at_fpr(0.01)
    outliers = scores.on(scores.outlier)
    assert scores.summary().group("outliers").auc == outliers.auc


def test_balanced_accuracy_and_advantage_have_the_closed_form_of_gaussian_scores():
    # The best threshold is halfway: balanced accuracy Phi(shift / 2). 4 standard errors of a share
    # of 8 * 3000 targets are 0.013; choosing the threshold adds less than that
    scores = planted(records=3000)
    expected = norm.cdf(0.5)
    assert float(scores.balanced_accuracy) == pytest.approx(expected, abs=0.013)
    assert float(scores.advantage) == pytest.approx(2 * expected - 1, abs=0.026)
    assert scores.advantage.low < 2 * expected - 1 < scores.advantage.high


def test_the_advantage_of_null_scores_is_that_of_the_best_threshold_and_not_zero():
    # As the docstring says: P[sqrt(n / 2) max (TPR - FPR) > x] = exp(-2 x^2) for large n, with mean
    # 0.627 and deviation 0.328; the mean over 40 seeds is within 4 standard errors
    found = []
    for seed in range(40):
        generator = np.random.default_rng([62, seed])
        keep = np.arange(800).reshape(2, 400) % 2 == 0
        values = generator.normal(size=keep.shape)
        curve = MembershipScores("null", values, keep, np.zeros(400, bool)).roc()
        found.append((curve.tpr - curve.fpr).max())
    unit = np.sqrt(2 / 400)
    assert np.mean(found) == pytest.approx(0.627 * unit, abs=4 * 0.33 * unit / np.sqrt(40))


def test_a_rate_below_the_resolution_is_marked_and_never_a_number():
    scores = planted(models=4, records=160)
    others = int((~scores.keep).sum())
    everything = scores.summary().group("all")
    assert everything.tpr[0.001] == Unresolved(needed=1000, available=others)
    assert str(everything.tpr[0.001]) == (
        f"below resolution (needs 1000 non-members, there are {others})"
    )
    assert isinstance(everything.tpr[0.01], Estimate)
    with pytest.raises(InputError, match="needs at least 1000 non-members"):
        scores.tpr_at_fpr(0.001)
    outliers = scores.summary().group("outliers")
    assert isinstance(outliers.tpr[0.01], Unresolved)
    assert isinstance(outliers.tpr[0.1], Estimate)


def test_a_group_without_members_or_non_members_is_marked_and_not_dropped():
    keep = draw_membership(60, 4, 0)
    labels = np.arange(60) % 3
    labels[labels == 2] = 4  # classes 2 and 3 have no record
    keep[:, labels == 0], keep[:, labels == 1] = True, False
    scores = MembershipScores(
        "test", np.random.default_rng(0).normal(size=keep.shape), keep, np.zeros(60, bool)
    )
    summary = scores.summary(labels)
    reasons = {
        "class 0": "no non-members",
        "class 1": "no members",
        "class 2": "no records",
        "class 3": "no records",
        "outliers": "no records",
    }
    for name, reason in reasons.items():
        group = summary.group(name)
        assert group.auc == group.advantage == group.tpr[0.001] == Absent(reason)
    assert isinstance(summary.group("class 4").auc, Estimate)
    assert "class 2" in str(summary)
    assert "no non-members" in str(summary)


def test_the_table_fits_80_columns_and_names_what_is_missing():
    text = str(planted().summary(np.arange(300) % 12))
    assert max(len(line) for line in text.splitlines()) <= 80
    assert text.splitlines()[0] == "attack 'planted': 8 models, 300 records"
    assert "needs 1000, has" in text
    assert "below resolution" in text
    assert "TPR at 0.1% FPR" in text
    assert "95% over resampled models and records" in text


def test_a_summary_becomes_json():
    plain = planted(models=4, records=40).summary(np.arange(40) % 2).to_dict()
    again = json.loads(json.dumps(plain))
    assert again["attack"] == "planted"
    assert [g["name"] for g in again["groups"]] == ["all", "class 0", "class 1", "outliers"]
    assert set(again["groups"][0]["auc"]) == {"value", "low", "high", "confidence"}
    assert again["groups"][0]["tpr"]["0.001"]["needed"] == 1000
    assert "below resolution" in again["groups"][0]["tpr"]["0.001"]["missing"]


def test_labels_that_do_not_fit_the_records_are_refused():
    scores = planted(records=40)
    for labels in (np.zeros(39, int), np.zeros(40), -np.ones(40, int), np.zeros((40, 1), int)):
        with pytest.raises(InputError, match=r"40 integers from 0 on.*pool\.labels"):
            scores.summary(labels)
    with pytest.raises(InputError, match="unknown group 'class 9'"):
        scores.summary().group("class 9")
