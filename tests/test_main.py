"""What `python -m solution` says when a command is stopped."""

import pytest

from solution import __main__


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "waste_shufflenet"], "; the best epoch so far is kept; run the same command with --resume to go on"),
        (["export", "net.safetensors", "--format", "onnx"], "; nothing was written; run the same command again"),
        (["data", "photos"], ""),
    ],
)
def test_a_stopped_command_says_how_to_go_on(words, said, monkeypatch, capsys):
    def stopped(arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(__main__.COMMANDS[words[0]], "run", stopped)
    assert __main__.main(words) == 130
    assert capsys.readouterr().err == f"stopped{said}\n"
