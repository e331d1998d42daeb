"""What several tests share: a toy task that a small net learns in seconds, and a cache of their own."""

import pytest
import torch
from shell import command, run
from toy_batches import toy_batches

from solution.contracts import StepContext
from solution.models.shufflenet import ShuffleNet
from solution.runtime import data_folder, set_threads

set_threads()


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory):
    """Decoded images of the tests stay apart from the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOLUTION_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def real_data():
    """The folder of real images; the test is skipped when there is none."""
    folder = data_folder()
    if folder is None:
        pytest.skip("no real images: set SOLUTION_DATA to their folder")
    return folder


@pytest.fixture
def toy():
    """A `StepContext` of three classes with train, choose and calibration batches."""
    train = toy_batches(6, seed=0)
    return StepContext(
        example=train[0][0][:2],
        train=train,
        dev=toy_batches(2, seed=1),
        calibration=toy_batches(2, seed=2),
        classes=("red", "green", "blue"),
        log=lambda _: None,
    )


@pytest.fixture
def small_net():
    """A ShuffleNet of three classes, 3,3,2 units, randomly initialized with seed 0, in evaluation mode."""
    torch.manual_seed(0)
    return ShuffleNet(units=(3, 3, 2), width=0.1).build(num_classes=3).eval()


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """A folder of PNG files, train (24 a class) and val (6 a class), of three classes that differ in color."""
    import numpy as np
    from PIL import Image

    chance = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("sets") / "colors"
    for split, count in (("train", 24), ("val", 6)):
        for channel, name in enumerate(("blue", "green", "red")):
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = chance.integers(0, 160, (40, 36, 3), dtype=np.uint8)
                pixels[..., 2 - channel] += 90
                Image.fromarray(pixels).save(folder / split / name / f"{number}.png")
    return folder


@pytest.fixture(scope="session")
def finished(photos, tmp_path_factory):
    """(folder, printed text) of one whole run of the main recipe by the command line."""
    out = tmp_path_factory.mktemp("runs") / "colors"
    done = run(command(photos, out))
    assert done.returncode == 0, done.stderr
    return out, done.stdout
