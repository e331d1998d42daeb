"""Claims, rungs, kills, storage and outcome of searches that train nothing."""

import csv
import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest
import toy_search as toy
from optuna.trial import TrialState
from sqlalchemy.exc import IntegrityError, ProgrammingError

from solution.contracts import InputError
from solution.locks import held, try_lock
from solution.runtime import ROOT
from solution.search import study
from solution.search.outcome import best_of, front_of, importance, table
from solution.search.session import Progress, WorkerPool, num_ended
from solution.search.study import (
    Stopped,
    TrialRejected,
    figures_of,
    is_rejected,
    latest,
    open_storage,
    open_study,
    root_of,
    rungs_of,
)
from solution.search.worker import MOST_STARTS, work


def quiet(_):
    pass


def trials_of(queue):
    return queue.study.get_trials(deepcopy=False)


def states(queue):
    return Counter(trial.state for trial in trials_of(queue))


@pytest.fixture(scope="module")
def tried(tmp_path_factory):
    """A study of 40 wanted trials: most complete, some failed, some refused."""
    queue = toy.queue(tmp_path_factory.mktemp("toy"), 40)
    work(queue, toy.formula, log=quiet)
    return queue


@pytest.fixture(scope="module", params=["score", "front"])
def staged(request, tmp_path_factory):
    """A study of 40 trials of 27 epochs."""
    queue = toy.queue(tmp_path_factory.mktemp("staged"), 40, epochs=27, objective=request.param)
    work(queue, toy.staged, log=quiet)
    return queue


def test_refused_trials_are_not_counted_and_failed_ones_are_recorded_with_their_error(tried):
    trials = trials_of(tried)
    refused = [trial for trial in trials if is_rejected(trial)]
    assert len(trials) - len(refused) == 40
    assert all(trial.state == TrialState.PRUNED and trial.constraints for trial in refused)
    for trial in trials:
        if trial.state == TrialState.FAIL:
            assert trial.user_attrs["error"] == "ValueError: planted"
            assert "planted" in (tried.trial_folder(trial) / "error.txt").read_text()
    assert states(tried)[TrialState.RUNNING] == 0
    assert tried.is_done()


def test_the_sampler_learns(tried):
    done = [figures.score for trial in trials_of(tried) if (figures := figures_of(trial))]
    assert sum(done[-10:]) < sum(done[:10])


def test_more_trials_go_on_with_the_same_study(tmp_path):
    for wanted in (3, 5):
        queue = toy.queue(tmp_path, wanted)
        work(queue, toy.formula, log=quiet)
        assert num_ended(queue) == wanted


def test_the_best_go_on_from_where_they_stopped(staged):
    trials = trials_of(staged)
    for root, trial in latest(trials).items():
        epochs = (staged.trial_folder(trial) / "epochs.txt").read_text().split()
        assert epochs == [str(epoch) for epoch in range(len(epochs))], "an epoch was trained twice, or left out"
        reached = 27 if trial.state == TrialState.COMPLETE else max(rungs_of(trial))
        assert len(epochs) == reached
        assert staged.hyperband.rungs(staged.hyperband.bracket(root))[: len(rungs_of(trial))] == tuple(rungs_of(trial))
    assert any(root_of(trial) != trial.number for trial in trials), "nothing went on"
    assert len({root_of(trial) for trial in trials}) == 40


def test_weak_trials_rest_and_the_best_of_a_rung_never_does(staged):
    groups = {}
    for root, trial in latest(trials_of(staged)).items():
        for epoch, values in rungs_of(trial).items():
            went_on = trial.state == TrialState.COMPLETE or max(rungs_of(trial)) > epoch
            groups.setdefault((staged.hyperband.bracket(root), epoch), []).append((values, went_on))
    for group in groups.values():
        gone = sum(went_on for _, went_on in group)
        assert gone >= 1
        assert gone < len(group) or len(group) < 3
        if len(group[0][0]) == 1:
            assert min(group)[1], "the best one rests"


def test_resting_trials_tell_the_sampler_their_score(staged):
    resting = [trial for trial in trials_of(staged) if trial.state == TrialState.PRUNED]
    if len(staged.study.directions) == 1:
        assert all(set(trial.intermediate_values) == set(rungs_of(trial)) for trial in resting)


def test_a_trial_that_goes_on_may_be_refused_by_then_and_rests_for_good(tmp_path):
    def too_late(task):
        if "root" in task.claim.trial.user_attrs:
            raise TrialRejected("another one is better by now", 0.1)
        return toy.staged(task)

    queue = toy.queue(tmp_path, 12, epochs=27)
    work(queue, too_late, log=quiet)
    late = [trial for trial in trials_of(queue) if is_rejected(trial)]
    assert late
    assert len({root_of(trial) for trial in late}) == len(late)
    assert num_ended(queue) == 12


def test_a_trial_left_behind_is_taken_up_with_its_settings(tmp_path):
    seen = []

    def interrupted(task):
        seen.append(dict(task.drawn))
        if len(seen) == 1:
            raise KeyboardInterrupt
        return toy.figures(task.drawn)

    queue = toy.queue(tmp_path, 1)
    with pytest.raises(KeyboardInterrupt):
        work(queue, interrupted, log=quiet)
    assert states(queue) == {TrialState.RUNNING: 1}
    work(toy.queue(tmp_path, 1), interrupted, log=quiet)
    assert states(queue) == {TrialState.COMPLETE: 1}
    assert seen[0] == seen[1]


def test_a_trial_that_runs_elsewhere_is_left_alone(tmp_path):
    queue = toy.queue(tmp_path, 1)
    claim = queue.claim()
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT / 'tests' / 'search')!r}); import toy_search; from pathlib import "
        f"Path; print(toy_search.queue(Path({str(tmp_path)!r}), 1).claim())"
    )
    words = [sys.executable, "-c", code]
    assert subprocess.run(words, cwd=ROOT, capture_output=True, text=True).stdout.strip() == "None"
    claim.lock.release()
    assert "Claim" in subprocess.run(words, cwd=ROOT, capture_output=True, text=True).stdout


def test_a_trial_that_ends_while_it_is_claimed_is_not_taken_again(tmp_path, monkeypatch):
    queue, other = toy.queue(tmp_path, 2), toy.queue(tmp_path, 2)
    first = other.claim()

    def after_its_end(path):
        if not states(queue)[TrialState.COMPLETE]:
            other.study.tell(first.trial, 0.5)
            first.lock.release()
        return try_lock(path)

    monkeypatch.setattr("solution.search.worker.try_lock", after_its_end)
    assert queue.claim().trial.number == first.trial.number + 1


def test_a_trial_that_kills_its_workers_is_given_up(tmp_path):
    def deadly(task):
        raise KeyboardInterrupt

    for _ in range(MOST_STARTS):
        with pytest.raises(KeyboardInterrupt):
            work(toy.queue(tmp_path, 1), deadly, log=quiet)
    queue = toy.queue(tmp_path, 1)
    work(queue, deadly, log=quiet)
    assert "died 10 times" in trials_of(queue)[0].user_attrs["error"]


def test_a_worker_that_is_told_to_stop_leaves_its_trial(tmp_path):
    def stopping(task):
        raise Stopped

    queue = toy.queue(tmp_path, 1)
    answers = iter([True, False])
    work(queue, stopping, keep_on=lambda: next(answers), log=quiet)
    assert states(queue) == {TrialState.RUNNING: 1}


def worker(folder, num_trials, pause_s=0.005):
    words = [sys.executable, "-m", "toy_search", str(folder), str(num_trials), str(pause_s)]
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests" / "search")])
    return subprocess.Popen(words, env={**os.environ, "PYTHONPATH": paths}, cwd=ROOT)


def test_workers_killed_at_random_moments_lose_nothing(tmp_path):
    chance, wanted = random.Random(0), 60
    queue = toy.queue(tmp_path, wanted)
    workers = [worker(tmp_path, wanted) for _ in range(2)]
    for kill in range(6):
        deadline = time.monotonic() + 120
        while len(trials_of(queue)) < 8 * (kill + 1) and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(0.02 * chance.random())
        index = chance.randrange(2)
        workers[index].send_signal(signal.SIGKILL)
        workers[index].wait()
        workers[index] = worker(tmp_path, wanted)
    assert [process.wait() for process in workers] == [0, 0]
    trials = trials_of(queue)
    assert len(queue.counted()) == wanted
    assert states(queue)[TrialState.RUNNING] == 0
    again = [count for count in Counter((tmp_path / "ran.txt").read_text().split()).values() if count > 1]
    assert len(again) <= 6, "only what was killed may have been run again"
    assert len({json.dumps(trial.params) for trial in trials}) == len(trials), "the same settings were drawn twice"


def test_a_line_that_a_kill_cut_short_is_dropped(tmp_path):
    queue = toy.queue(tmp_path, 2)
    work(queue, toy.formula, log=quiet)
    before = [(trial.state, trial.params) for trial in trials_of(queue)]
    with (tmp_path / "journal.log").open("a") as file:
        file.write('{"op_code": 4, "worker')
    queue = toy.queue(tmp_path, 3)
    work(queue, toy.formula, log=quiet)
    after = [(trial.state, trial.params) for trial in trials_of(toy.queue(tmp_path, 3))]
    assert after[: len(before)] == before
    assert num_ended(queue) == 3


def test_a_lock_opens_when_its_holder_is_killed(tmp_path):
    path = tmp_path / "lock"
    code = f"import time; from solution.locks import *; l = try_lock(Path({str(path)!r})); print(1); time.sleep(9)"
    holder = subprocess.Popen([sys.executable, "-uc", code], cwd=ROOT, stdout=subprocess.PIPE)
    holder.stdout.readline()
    assert try_lock(path) is None
    holder.kill()
    holder.wait()
    lock = try_lock(path)
    assert lock
    lock.release()
    with held(path):
        pass


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("postgresql://me:secret@localhost:1/trials", "cannot reach the storage postgresql://me:"),
        ("nosuchbase://here", "cannot reach the storage nosuchbase://here"),
        ("sqlite:////nowhere/at/all/trials.db", "cannot reach the storage sqlite"),
    ],
)
def test_a_storage_that_cannot_be_reached(where, message):
    with pytest.raises(InputError, match=message) as found:
        open_storage(where)
    assert "secret" not in str(found.value)


def test_a_file_that_is_no_journal(tmp_path):
    (tmp_path / "notes.txt").write_text("dear diary\nand more\n")
    with pytest.raises(InputError, match="no journal of a search"):
        open_storage(tmp_path / "notes.txt")
    with pytest.raises(InputError, match="cannot reach"):
        open_storage(tmp_path)


def test_a_database_works_as_well(tmp_path):
    study = open_study(open_storage(f"sqlite:///{tmp_path}/trials.db"), "toy", "score", {})
    queue = toy.TrialQueue(
        study=study, space=toy.SPACE, folder=tmp_path, num_trials=2, hyperband=toy.Hyperband(total=9)
    )
    work(queue, toy.staged, log=quiet)
    assert num_ended(queue) == 2
    assert best_of(study)


def test_two_studies_of_one_name(tmp_path):
    storage = open_storage(tmp_path / "journal.log")
    open_study(storage, "one", "score", {"space": {"model.units": "one of (1, 1)"}})
    with pytest.raises(InputError, match=r"'one' was begun with another space \(model.units: one of \(1, 1\) there"):
        open_study(storage, "one", "score", {"space": {"model.units": "one of (2, 2)"}})
    with pytest.raises(InputError, match="another objective"):
        open_study(storage, "one", "front", {"space": {"model.units": "one of (1, 1)"}})
    with pytest.raises(InputError, match="objective must be one of score, front"):
        open_study(storage, "two", "speed", {})


def test_the_outcome_of_trials(tried):
    best = best_of(tried.study)
    done = [trial for trial in trials_of(tried) if figures_of(trial)]
    assert figures_of(best).score == min(figures_of(trial).score for trial in done)
    front = [figures_of(trial) for trial in front_of(tried.study)]
    for one in map(figures_of, done):
        assert any(other.f1 >= one.f1 and other.macs <= one.macs for other in front)
    assert [one.macs for one in front] == sorted(one.macs for one in front)
    shown = table(tried.study).splitlines()
    assert len(shown) == 12  # the best ten below their headings, and the refused
    assert shown[1].split()[0] == str(best.number)
    assert sum(importance(tried.study).values()) == pytest.approx(1)


def test_a_table_has_a_row_for_each_trial_that_was_wanted(tmp_path):
    queue = toy.queue(tmp_path, 4, epochs=27)
    work(queue, toy.staged, log=quiet)
    assert any(root_of(trial) != trial.number for trial in trials_of(queue)), "nothing went on"
    shown = table(queue.study).splitlines()
    assert len(shown) == 1 + 4


def test_refused_trials_are_a_line_below_the_table(tried):
    refused = [trial for trial in trials_of(tried) if is_rejected(trial)]
    last = table(tried.study).splitlines()[-1]
    assert last == f"refused before their training: {len(refused)}, such as trial {refused[0].number}: too large"


def test_no_finished_trial_is_an_error_that_says_why(tmp_path):
    queue = toy.queue(tmp_path, 2)

    def broken(task):
        raise RuntimeError("no photos")

    work(queue, broken, log=quiet)
    with pytest.raises(InputError, match="none of 2 trials was trained to its end: RuntimeError: no photos"):
        best_of(queue.study)
    assert importance(queue.study) == {}


def test_the_progress_line(tried):
    line = Progress(queue=tried).line()
    assert line.startswith("trial 40/40")
    assert f"best score {figures_of(best_of(tried.study)).score:.4f}" in line
    assert "trials/h" in line
    assert line.endswith("done")
    more = dataclasses.replace(tried, num_trials=80)
    assert Progress(queue=more, ended_before=40).line().endswith("? left")
    assert Progress(queue=more, began=time.monotonic() - 3600).line().endswith("40.0 trials/h | 1 h 00 min left")


def test_workers_that_die_at_once_are_replaced_only_so_often(tmp_path):
    queue, said = toy.queue(tmp_path, 1), []
    pool = WorkerPool(
        command=[sys.executable, "-c", "raise SystemExit('no luck')"],
        size=1,
        logs=tmp_path,
        queue=queue,
        log=said.append,
    )
    with pytest.raises(InputError, match=r"workers die as soon as they start.*\n.*no luck"):
        pool.run()
    assert any("is replaced" in line for line in said)


def test_a_killed_worker_is_replaced_and_the_study_gets_done(tmp_path):
    queue, said = toy.queue(tmp_path, 30), []
    code = (
        f"import os, signal, sys; sys.path.insert(0, {str(ROOT / 'tests' / 'search')!r}); import toy_search as t;"
        f"from pathlib import Path; from solution.search.worker import work; p = Path({str(tmp_path)!r});\n"
        "def once(task):\n"
        "    if task.claim.trial.number == 5 and not (p / 'killed').exists():\n"
        "        (p / 'killed').touch(); os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return t.formula(task)\n"
        "work(t.queue(p, 30), once)"
    )
    WorkerPool(command=[sys.executable, "-c", code], size=2, logs=tmp_path / "logs", queue=queue, log=said.append).run()
    assert num_ended(queue) == 30
    assert any("is replaced" in line for line in said)
    assert said[-1].startswith("trial 30/30")


def test_the_table_is_written_as_csv(tried, tmp_path):
    from solution.search.outcome import Outcome
    from solution.search.study import tried as line_of

    path = Outcome(study=tried.study, recipe=None, space=toy.SPACE, folder=tmp_path)._table(
        [line_of(trial) for trial in trials_of(tried)]
    )
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(trials_of(tried))
    assert {row["state"] for row in rows} <= {"complete", "failed", "refused"}
    assert rows[0]["stage3.x"]


@pytest.mark.parametrize("error", [IntegrityError, ProgrammingError])
def test_machines_that_make_the_tables_at_the_same_moment_try_again(tmp_path, monkeypatch, error):
    real, calls = study.get_storage, []

    def late(url):
        calls.append(url)
        if len(calls) < 3:
            raise error("CREATE TABLE", {}, Exception("it is there already"))
        return real(url)

    monkeypatch.setattr(study, "get_storage", late)
    assert study.open_storage(f"sqlite:///{tmp_path}/trials.db").get_all_studies() == []
    assert len(calls) == 3
