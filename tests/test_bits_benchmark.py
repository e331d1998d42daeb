"""`benchmarks/bits.py` on a net that is quantized after training."""

import zipfile

from benchmarks import bits
from solution import pipeline
from solution.evaluate.speed import Turns
from solution.run_folder import read_run


def test_the_table_says_what_zip_makes_of_the_float_file(photos, finished, tmp_path, monkeypatch, capsys):
    net = finished[0] / "before.safetensors"
    options = "--bits 16 8 --name net --workers 0 --device cpu --out"
    monkeypatch.setattr("sys.argv", ["bits", str(net), str(photos), *options.split(), str(tmp_path)])
    monkeypatch.setattr(pipeline, "_TURNS", Turns(rounds=1, seconds=0.01, batches=(1,)))
    bits.main()
    path = tmp_path / "net" / "base" / "model.safetensors"
    with zipfile.ZipFile(tmp_path / "base.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        archive.write(path, path.name)
    zipped = (tmp_path / "base.zip").stat().st_size
    assert bits.finished(tmp_path)["net"].zipped_bytes == zipped < path.stat().st_size
    base = read_run(tmp_path / "net").rows[0]
    assert f"| net | 32, float | {base.packed_bytes:,} | {zipped:,} |" in capsys.readouterr().out
