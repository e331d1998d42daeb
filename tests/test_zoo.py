"""The committed rows of `benchmarks/zoo.py`: they say what the page says, and what is promised of the engine."""

from pathlib import Path

import pytest

from benchmarks import zoo

ROOT = Path(__file__).resolve().parents[1]
OUTCOMES = list(zoo.logged(ROOT / "benchmarks" / "rows" / "zoo.jsonl").values())


def test_page_is_made_of_the_committed_rows():
    assert zoo.tables(OUTCOMES) in (ROOT / "docs" / "channel_pruning.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(("source", "least"), [("torchvision", 1.0), ("pytorchcv-shufflenets", 1.0), ("timm", 0.97)])
def test_ours_cuts_what_is_promised_and_never_less_than_the_peer(source, least):
    ours, peer = (
        {one["name"]: one["passed"] for one in OUTCOMES if one["list"] == source and one["tool"] == tool}
        for tool in zoo.TOOLS
    )
    assert set(ours) == set(zoo.LISTS[source]()) >= set(peer)
    at_best = sum(peer.values()) + len(ours) - len(peer)  # had it passed wherever it was not run
    assert sum(ours.values()) >= max(least * len(ours), at_best)


@pytest.mark.long
def test_a_net_is_cut_and_proven_in_a_process_of_its_own(tmp_path, monkeypatch):
    asked = "pytorchcv-shufflenets --only shufflenet_g3_wd4 --tools ours --log"
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("sys.argv", ["zoo", *asked.split(), str(tmp_path / "log.jsonl")])
    zoo.main()
    (outcome,) = zoo.logged(tmp_path / "log.jsonl").values()
    assert outcome["passed"]
    assert outcome["error"] < 1e-10 < outcome["moved"]
    assert outcome["macs_after"] < 0.5 * outcome["macs_before"]
