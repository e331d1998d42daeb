"""Searches on a real PostgreSQL and on a proxy, with kills: no trial is lost or there twice, no password is shown."""

import os
import random
import subprocess
import sys
import time
import zlib
from collections import Counter
from pathlib import Path

import pytest
import servers
import toy_search as toy

from solution.contracts import InputError
from solution.runtime import ROOT
from solution.search.study import open_storage

pytestmark = pytest.mark.long

NUM_TRIALS = 200
STORAGE = "SOLUTION_STORAGE"


@pytest.fixture(scope="module")
def server():
    """The URL of a PostgreSQL."""
    pytest.importorskip("psycopg")
    if servers.programs() is None:
        pytest.skip("no PostgreSQL here: apt-get install postgresql")
    with servers.postgres() as url:
        yield url


@pytest.fixture
def database(server, tmp_path):
    """The URL of a database without studies: what one test finished another one would take for its own."""
    import psycopg

    name = f"trials_{zlib.crc32(str(tmp_path).encode()):08x}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return f"{server.rpartition('/')[0]}/{name}"


@pytest.fixture
def proxy(database):
    """The address of a proxy before that database."""
    pytest.importorskip("grpc")
    port = servers.free_port()
    words = [sys.executable, "-m", "solution", "storage", "--port", str(port)]
    with subprocess.Popen(words, env=os.environ | {STORAGE: database}, cwd=ROOT, stdout=subprocess.PIPE) as served:
        assert servers.PASSWORD.encode() not in served.stdout.readline()
        try:
            servers.wait_for(lambda: servers.answers(port))
            yield f"grpc://127.0.0.1:{port}"
        finally:
            served.terminate()


def worker(folder, storage, num_trials):
    folder.mkdir(parents=True, exist_ok=True)
    words = [sys.executable, toy.__file__, str(folder), str(num_trials), "0.01"]
    places = {STORAGE: storage, "PYTHONPATH": os.pathsep.join([str(ROOT), str(Path(toy.__file__).parent)])}
    return subprocess.Popen(words, env=os.environ | places, cwd=ROOT)


def survive(folder, storage, num_trials, num_workers, num_kills):
    """The trials of a study on which workers of two machines, so of two folders, worked and some were killed."""
    chance, homes = random.Random(0), [folder / f"machine{number % 2}" for number in range(num_workers)]
    started = [worker(home, storage, num_trials) for home in homes]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(STORAGE, storage)
        servers.wait_for((homes[0] / "ran.txt").exists, seconds=300)
        study = toy.queue(folder / "watcher", num_trials).study
    for kill in range(num_kills):
        wanted = (kill + chance.random()) * 0.8 * num_trials / num_kills
        servers.wait_for(lambda: len(study.get_trials(deepcopy=False)) >= wanted, seconds=300)  # noqa: B023
        started[kill].kill()
        started[kill].wait()
        time.sleep(0.3)
        started[kill] = worker(homes[kill], storage, num_trials)
    assert [one.wait() for one in started] == [0] * num_workers
    return study.get_trials(deepcopy=False)


def check(trials, num_trials):
    counted = [trial for trial in trials if "refused" not in trial.user_attrs]
    assert len(counted) == num_trials
    assert all(trial.state.is_finished() for trial in trials)
    assert [trial.number for trial in trials] == list(range(len(trials)))
    drawn = Counter(tuple(sorted(trial.params.items())) for trial in trials if trial.params)
    assert max(drawn.values()) == 1


@pytest.mark.postgres
def test_four_workers_on_postgresql_lose_no_trial_when_two_are_killed(database, tmp_path):
    check(survive(tmp_path, database, NUM_TRIALS, num_workers=4, num_kills=2), NUM_TRIALS)


@pytest.mark.postgres
def test_workers_behind_a_proxy_lose_no_trial_when_one_is_killed(proxy, tmp_path):
    check(survive(tmp_path, proxy, 40, num_workers=2, num_kills=1), 40)


@pytest.mark.postgres
def test_a_wrong_password_is_refused_and_not_shown(database):
    wrong = database.replace(servers.PASSWORD, "guessed")
    with pytest.raises(InputError, match="cannot reach the storage postgresql://tester:") as caught:
        open_storage(wrong)
    assert "guessed" not in str(caught.value)


@pytest.mark.postgres
def test_several_words_for_the_same_database_are_understood(database):
    for spelled in ("postgres://", "postgresql+psycopg://"):
        assert open_storage(database.replace("postgresql://", spelled)).get_all_studies() is not None


def test_a_proxy_that_is_not_there_is_named(monkeypatch):
    pytest.importorskip("grpc")
    monkeypatch.setattr("solution.search.study._REACHED_S", 0.5)
    with pytest.raises(InputError, match=r"cannot reach the storage grpc://someone:[*]{3}@127.0.0.1:1") as caught:
        open_storage("grpc://someone:hidden@127.0.0.1:1")
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize("url", [[], ["trials.db"], ["grpc://elsewhere:13000"]])
def test_only_a_database_is_shared_by_a_proxy(url, tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != STORAGE} | {"PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-m", "solution", "storage", *url]
    done = subprocess.run(words, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: name the database that is shared")
    assert list(tmp_path.iterdir()) == []
