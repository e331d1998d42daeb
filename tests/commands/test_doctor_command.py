"""The doctor: what is there, what is wrong and what to type; code 0 unless something is broken."""

import os
import subprocess
import sys

import pytest

from solution import runtime
from solution.__main__ import main
from solution.commands import doctor
from solution.runtime import ROOT


@pytest.fixture
def quick(monkeypatch):
    """Two small libraries stand for all that are imported."""
    monkeypatch.setattr(doctor, "requirements", lambda: (["rich>=13,<16", "numpy>=2,<3"], {"web": ["flask>=3.1,<4"]}))


def test_it_tells_versions_machine_extras_caches_and_folders(capsys):
    assert main(["doctor"]) == 0
    said = capsys.readouterr().out
    for word in ("torch", ">=2.14,<2.15", "processor", "int8", "bfloat16", "threads", "onnxruntime", "openvino",
                 "mlflow", "cache", "temporary files", "results", "nothing is broken"):  # fmt: skip
        assert word in said


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["nowhere-at-all>=1,<2"], 'broken: nowhere-at-all: it is not installed: pip install "nowhere-at-all>=1,<2"'),
        (["numpy>=1,<2"], 'note: numpy: this version was not tried: pip install "numpy>=1,<2"'),
        (["numpy>=2,<3", "pytest-xdist>=1"], "broken: pytest-xdist: it cannot be imported (ModuleNotFoundError"),
    ],
)
def test_what_is_wrong_is_said_with_what_to_type(monkeypatch, capsys, texts, said):
    monkeypatch.setattr(doctor, "requirements", lambda: (texts, {}))
    code = main(["doctor"])
    captured = capsys.readouterr()
    assert said in captured.out
    assert code == (2 if said.startswith("broken") else 0)
    assert code == 0 or captured.err.startswith("error: 1 broken: ")


def test_a_library_that_ends_its_process_is_named_and_the_others_are_tried(tmp_path, monkeypatch):
    (tmp_path / "numpy.py").write_text("import os; os._exit(3)")
    (tmp_path / "rich.py").write_text("raise OSError('libGL.so.1: no such file')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    found = {finding.name: finding for finding in doctor.versions(["numpy>=2", "rich>=13", "pillow>=11"])}
    assert "it ends the process" in found["numpy"].advice
    assert "OSError: libGL.so.1: no such file" in found["rich"].advice
    assert not found["pillow"].broken


def test_a_missing_extra_is_no_fault_and_is_named(monkeypatch):
    (finding,) = doctor.in_extra("edge", ["nowhere-at-all>=1,<2"])
    assert finding.found == 'not here: pip install -e ".[edge]"'
    assert finding.advice == ""


def test_clean_deletes_what_was_cached_and_nothing_else(quick, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SOLUTION_CACHE", str(tmp_path))
    own = [
        f"photos-80-{'a' * 24}.npy",
        f"photos-80-{'a' * 24}.json",
        f"views-{'0' * 32}.npy",
        f"answers-{'1' * 32}.npy",
    ]
    others = ["thesis.npy", "photos-80.json", "yolov8n.pt", f"{'a' * 24}.npy"]
    for name in [*own, *others]:
        (tmp_path / name).write_bytes(b"x" * 1000)
    (tmp_path / f"views-{'2' * 32}.npy").symlink_to(tmp_path / "thesis.npy")
    assert main(["doctor"]) == 0
    assert "augmented views" in capsys.readouterr().out
    assert main(["doctor", "--clean"]) == 0
    assert "4 files, 0 MB deleted" in capsys.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} == {*others, f"views-{'2' * 32}.npy"}


@pytest.mark.long
def test_a_place_that_cannot_be_written_is_broken(quick, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").touch()
    monkeypatch.setenv("SOLUTION_CACHE", str(tmp_path / "file" / "cache"))
    assert main(["doctor"]) == 2
    assert "choose another folder by SOLUTION_CACHE" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["many", "0", "-1", "1e3", "100000"])
def test_an_impossible_number_of_threads_is_a_line_everywhere(quick, monkeypatch, capsys, text):
    monkeypatch.setenv("SOLUTION_THREADS", text)
    assert main(["doctor"]) == 2
    assert main(["inspect", "nowhere.safetensors"]) == 2
    assert main(["run", "waste_shufflenet", "--data", "nowhere"]) == 2
    assert "SOLUTION_THREADS must be a whole number from 1 to 1024" in capsys.readouterr().err


def test_the_machine_is_told_in_plain_words(monkeypatch):
    monkeypatch.setattr(
        runtime, "_about_processor", lambda: {"model name": "Xeon", "flags": "avx2 avx512_vnni amx_int8"}
    )
    found = {finding.name: finding.found for finding in doctor.machine()}
    assert found["processor"] == "Xeon"
    assert found["int8"] == "fast, by AMX, AVX-512 VNNI"
    assert "imitated" in found["bfloat16"]
    monkeypatch.setattr(runtime, "_about_processor", lambda: {"flags": "avx2 avx512_bf16"})
    found = {finding.name: finding.found for finding in doctor.machine()}
    assert "hardly faster" in found["int8"]
    assert "every.precision=bf16" in found["bfloat16"]


@pytest.mark.parametrize("name", ["torch", *(pytest.param(name, marks=pytest.mark.slow) for name in ("rich", "numpy"))])
def test_it_starts_without_any_library(tmp_path, name):
    (tmp_path / f"{name}.py").write_text(f"raise ImportError('no {name} here')")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    done = subprocess.run([sys.executable, "-m", "solution", "doctor"], capture_output=True, text=True, cwd=tmp_path,
                          env=environment)  # fmt: skip
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert f"broken: {name}: it cannot be imported (ImportError: no {name} here)" in done.stdout
