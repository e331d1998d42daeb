"""The progress of a training, as a terminal of 80 columns shows it."""

import io

from rich.console import Console

from solution.train.progress import Bar, Place, busy, placed

HISTORY = [{"epoch": 1, "loss": 1.2345678, "dev_f1": 0.7123, "images_per_s": 1234.5, "seconds": 1.0}]


def line_of(bar):
    screen = io.StringIO()
    Console(width=80, file=screen, force_terminal=True, color_system=None).print(bar.progress.get_renderable())
    (line,) = screen.getvalue().splitlines()
    return line.rstrip()


def test_the_line_is_whole_at_80_columns(monkeypatch):
    with placed(Place(name="stage 2 of 4", epochs_after=340)):
        bar = Bar(170, 100, log=print)
    clock = iter(range(0, 10**9, 2))
    monkeypatch.setattr("solution.train.progress.time.monotonic", lambda: next(clock))
    for _ in bar.watch([()] * 100, 0):
        pass
    assert "judging on dev" in line_of(bar)
    bar.show(HISTORY)
    line = line_of(bar)
    assert len(line) <= 80
    for part in ("stage 2 of 4", "epoch 1/170", "loss 1.23 F1 0.712", " left"):
        assert part in line
    hours = int(line.split()[-2].split(":")[0])
    assert hours == 28  # 509 epochs of 100 steps of about 2 seconds: those of the later stages too


def test_a_terminal_shows_that_a_net_is_being_judged(monkeypatch):
    screen = io.StringIO()
    monkeypatch.setattr(
        "solution.train.progress.Console",
        lambda: Console(width=80, file=screen, force_terminal=True, color_system=None),
    )
    with placed(Place(name="stage 2 of 4")), busy("judging after"):
        pass
    assert "stage 2 of 4, judging after" in screen.getvalue()


def test_elsewhere_a_line_says_what_is_left():
    said = []
    bar = Bar(20, 1, log=said.append)
    history = []
    for epoch in range(20):
        for _ in bar.watch([()], epoch):
            pass
        history.append({**HISTORY[0], "epoch": epoch + 1})
        bar.show(history)
    assert [line.split(":")[0] for line in said] == ["epoch 10/20", "epoch 20/20"]
    assert said[0].endswith(" left")
    assert not said[1].endswith(" left")
