"""Names from data: nothing that a terminal would act on, and no way out of a folder."""

import ntpath
import posixpath

import pytest
from hypothesis import given, strategies as st

from solution.contracts import InputError
from solution.input_spec import InputSpec
from solution.text import printable, safe_name


@pytest.mark.parametrize("name", ["Glass", "Glas & Süßes (1)", "玻璃", "👩\u200d🔬", "می\u200cخواهم", "a\\b"])
def test_what_is_fit_to_be_shown_stays(name):
    assert printable(name) == name


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("\x1b[2Jgone", "\\x1b[2Jgone"),
        ("\x1b]8;;http://evil\x07click", "\\x1b]8;;http://evil\\x07click"),
        ("\x9b31mred", "\\x9b31mred"),
        ("gpj\u202eexe", "gpj\\u202eexe"),
        ("a\u2066b\u200b", "a\\u2066b\\u200b"),
        ("one\ntwo\r", "one\\ntwo\\r"),
        ("caf\udce9", "caf\\udce9"),
        ("\U000e0041", "\\U000e0041"),
    ],
)
def test_what_a_terminal_would_act_on_is_spelled_out(name, shown):
    assert printable(name) == shown
    assert printable(shown) == shown


def test_a_text_of_our_own_keeps_its_lines_and_errors_are_such_texts():
    assert printable("one\n\ttwo\x1b", lines=True) == "one\n\ttwo\\x1b"
    assert str(InputError("no class 'a\x1b[31m'\nnext line")) == "no class 'a\\x1b[31m'\nnext line"


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("Glass", "Glass"),
        ("my photo (1)", "my photo (1)"),
        ("../../etc/passwd", "_.._etc_passwd"),
        ("/etc", "_etc"),
        ("C:\\Windows", "C__Windows"),
        ("..", "unnamed"),
        ("", "unnamed"),
        (" . ", "unnamed"),
        (".hidden", "hidden"),
        ("end. ", "end"),
        ("CON", "CON_"),
        ("nul.tar.gz", "nul_.tar.gz"),
        ("Lpt1 .txt", "Lpt1_.txt"),
        ("com\u00b9", "com\u00b9_"),
        ("console", "console"),
        ("a\x1b\n\u202eb", "a___b"),
        ("e\u0301", "\u00e9"),
        ("caf\udce9", "caf_"),
    ],
)
def test_a_name_is_one_part_of_a_path_everywhere(name, safe):
    assert safe_name(name) == safe


@given(st.text(st.characters(codec=None), max_size=300) | st.sampled_from(["con", "~", "aux .x", "é" * 300]))
def test_no_name_leads_anywhere_else(name):
    safe = safe_name(name)
    assert safe == safe_name(safe)
    assert safe.strip(". ") == safe != ""
    assert len(safe.encode()) <= 201
    assert posixpath.normpath(posixpath.join("/root", safe)) == f"/root/{safe}"
    assert ntpath.normpath(ntpath.join("C:\\root", safe)) == f"C:\\root\\{safe}"
    assert not any(ord(char) < 32 for char in safe)


def test_names_that_differ_by_case_alone_are_told_apart():
    taken = set()
    assert [safe_name(name, taken) for name in ("Glass", "glass", "GLASS", "Glass~2", "e\u0301", "\u00e9")] == [
        "Glass", "glass~2", "GLASS~3", "Glass~2~2", "\u00e9", "\u00e9~2",
    ]  # fmt: skip


def test_classes_of_a_foreign_net_are_fit_to_be_shown():
    assert InputSpec(classes=("Glass", "\x1b[2J\u202eMetal")).classes == ("Glass", "\\x1b[2J\\u202eMetal")
