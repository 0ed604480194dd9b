"""A statement as plain data, and back."""

import json

import pytest

from dpnorm.errors import InputError
from dpnorm.privacy import Event, Ledger, PrivacyStatement, Release, statement_of

RELEASES = (Release("gradients", 1.0, 1.0), Release("statistics", 4.0, None))


@pytest.fixture(params=[1e-5, 1e-12])  # at the second, groups of records have no finite epsilon
def statement(request):
    steps = Event(1.0, 0.1, 20, RELEASES, "now")
    return statement_of(
        Ledger((Event(2.0, 0.05, 5, (), "before"), steps)),
        "now",
        delta=request.param,
        accountant="rdp",
        clip=1.0,
        releases=RELEASES,
        randomness="the operating system",
        isolation="proven: each record is alone",
    )


def test_a_statement_comes_back_from_json_as_it_was(statement):
    again = PrivacyStatement.from_dict(json.loads(json.dumps(statement.to_dict())))
    assert again == statement
    assert str(again) == str(statement)
    assert again.earlier_runs == ("before",)


@pytest.mark.parametrize(
    "change", [{"epsilon": None}, {"releases": [{"name": "x"}]}, {"groups": [[1]]}, {"extra": 1}]
)
def test_what_is_no_statement_is_one_clear_error(statement, change):
    data = statement.to_dict() | change
    if change == {"epsilon": None}:
        del data["epsilon"]
    with pytest.raises(InputError, match="not the data of a privacy statement"):
        PrivacyStatement.from_dict(data)
