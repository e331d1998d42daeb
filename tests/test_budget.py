"""A budget means one thing, or it is refused with the spellings that it might mean."""

import pytest
from hypothesis import given, strategies as st

from solution.budget import UNITS, Budget
from solution.contracts import InputError


@pytest.mark.parametrize(
    ("text", "kind", "limit"),
    [
        ("50%", "macs", 500.0),
        ("12M", "macs", 12e6),
        ("1.5G", "macs", 1.5e9),
        ("12_000", "params", 12_000),
        ("12,000", "params", 12_000),
        (800, "macs", 800),
        ("64 KiB", "bytes", 65_536),
        ("64KiB", "bytes", 65_536),
        ("100 KB", "bytes", 100_000),
        ("0.5 ms", "ms", 0.5),
        ("250 us", "ms", 0.25),
        ("2 s", "ms", 2000),
        ("12.5%", "ms", 125),
    ],
)
def test_a_budget_is_a_share_or_a_number_with_a_unit(text, kind, limit):
    assert Budget.of(text, kind).limit(1000) == pytest.approx(limit)


@pytest.mark.parametrize("value", [0.5, "0.5", 0.3, 1.0])
def test_a_float_below_one_is_refused_with_the_spellings_that_it_might_mean(value):
    with pytest.raises(InputError, match=r'could mean two things: write macs="[0-9]+%" .* or macs="[0-9]+%"'):
        Budget.of(value, "macs")


@pytest.mark.parametrize(
    ("value", "kind", "message"),
    [
        ("half", "macs", 'macs takes "50%" or a number such as "12M"'),
        ("12 ms", "macs", "macs takes"),
        ("12", "ms", "units: us, ms, s"),
        (3, "ms", "has no unit"),
        ("0%", "macs", "above 0%"),
        ("100%", "macs", "below 100%"),
        ("-3", "macs", "macs takes"),
        (-3, "macs", "must be a share"),
        (0, "macs", "must be a share"),
        ("0", "macs", "must be above 0"),
        (True, "macs", "must be a share"),
        (float("nan"), "macs", "must be a share"),
        (None, "bytes", "must be a share"),
        (Budget.of("50%", "macs"), "bytes", "a budget of macs"),
    ],
)
def test_what_is_no_budget_is_refused(value, kind, message):
    with pytest.raises(InputError, match=message):
        Budget.of(value, kind)


@given(kind=st.sampled_from(sorted(UNITS)), thousandths=st.integers(1, 99_999), number=st.integers(1, 10**12))
def test_a_budget_reads_back_from_its_text(kind, thousandths, number):
    share, absolute = Budget.of(f"{thousandths / 1000}%", kind), Budget(kind=kind, number=float(number))
    assert Budget.of(str(share), kind) == share
    assert Budget.of(str(absolute), kind) == absolute
