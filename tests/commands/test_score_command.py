"""``python -m solution score``: the figure first, its terms after, and no waiting for PyTorch."""

import subprocess
import sys

import pytest

from solution.__main__ import main
from solution.runtime import ROOT


def test_the_score_then_its_terms(capsys):
    assert main(["score", "--macs", "1083210", "--f1", "0.6149"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == "0.3430"
    assert second.strip() == "0.34305 = MACs term 0.07813 + F1 term 0.26491"


def test_a_warning_near_the_cliff(capsys):
    main(["score", "--macs", "1862490", "--f1", "0.4892"])
    said = capsys.readouterr().out
    assert said.startswith("1.1343")
    assert "warning: macro F1 0.4892 is within 0.02 of the cliff" in said


@pytest.mark.parametrize(("macs", "f1", "said"), [("-5", "0.6", "MACs must be 0 or more"), ("5", "61", "not percent")])
def test_figures_that_make_no_sense(capsys, macs, f1, said):
    assert main(["score", f"--macs={macs}", f"--f1={f1}"]) == 2
    assert said in capsys.readouterr().err


def test_it_does_not_load_pytorch():
    code = (
        "import sys; from solution.__main__ import main; "
        "main(['score', '--macs', '1', '--f1', '0.6']); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
