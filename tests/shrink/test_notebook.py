"""The notebook runs from top to bottom, and what it ends its cells with shows itself as HTML."""

import ast
import json

import pytest

import solution as fw
from solution.runtime import ROOT

pytestmark = pytest.mark.long

NOTEBOOK = ROOT / "docs" / "examples" / "shrink.ipynb"


def shown(source, names):
    """The value of a cell's last line, when that is an expression."""
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, str(NOTEBOOK), "exec"), names)
    return eval(compile(ast.Expression(last.value), str(NOTEBOOK), "eval"), names) if last else None


def test_the_notebook_goes_from_a_trained_net_to_the_small_file(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    assert not any(cell.get("outputs") for cell in cells)
    names = {}
    values = [shown("".join(cell["source"]), names) for cell in cells if cell["cell_type"] == "code"]
    pages = [value._repr_html_() for value in values if hasattr(value, "_repr_html_")]
    assert len(pages) == 2
    assert "MACs" in pages[0]
    assert "<table>" in pages[1]
    assert "<svg" in pages[1]
    assert names["result"].passed
    assert (tmp_path / "smaller" / "smaller.onnx").is_file()
    assert "are named right" in capsys.readouterr().out


def test_rows_show_themselves_as_tables():
    row = fw.Row(step="before", macs=1000, params=10, bytes=40, quality={"f1": 0.5})
    assert "<td>1000</td>" in row._repr_html_()
    from solution.report.tables import Rows

    html = Rows([row, row])._repr_html_()
    assert html.count("<tr>") == 3
    assert "0.5000" in html
