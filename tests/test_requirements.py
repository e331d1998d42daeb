"""`requirements.lock`: one tested version of everything, inside the ranges of `requirements.txt`, with its hashes."""

import re

import pytest
from packaging.requirements import Requirement

from solution.runtime import ROOT

LOCK = (ROOT / "requirements.lock").read_text()
ENTRIES = {
    Requirement(head).name.lower(): (Requirement(head), re.findall(r"--hash=(\S+)", tail))
    for head, tail in re.findall(r"^([a-zA-Z][^\\\n]*?) \\\n((?:    .*\n)+)", LOCK, flags=re.MULTILINE)
}


def test_every_range_has_its_one_version_inside():
    for line in (ROOT / "requirements.txt").read_text().split():
        wanted = Requirement(line)
        pinned, _ = ENTRIES[wanted.name.lower()]
        (version,) = pinned.specifier
        assert version.operator == "=="
        assert wanted.specifier.contains(version.version), line
        assert pinned.marker is None, f"{line} is needed everywhere"


def test_every_line_is_a_version_or_a_hash():
    lines = LOCK.splitlines()
    assert len(ENTRIES) > 80
    assert len(ENTRIES) == sum(not line.startswith(" ") for line in lines)
    for requirement, hashes in ENTRIES.values():
        assert [spec.operator for spec in requirement.specifier] == ["=="]
        assert hashes
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", one) for one in hashes)
    assert sum(len(hashes) for _, hashes in ENTRIES.values()) == sum(line.startswith(" ") for line in lines)


def test_it_names_no_place_that_packages_come_from():
    assert re.findall(r"https?:|file:|@|^-[-\w]", LOCK, flags=re.MULTILINE) == []


@pytest.mark.parametrize("name", ["numpy", "pillow"])
def test_compiled_libraries_have_a_hash_for_each_of_their_wheels(name):
    assert len(ENTRIES[name][1]) > 10
