import dataclasses
import hashlib
import json
import pickle
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from solution.contracts import InputError
from solution.data import loaders as loaders_file
from solution.data.loaders import MEAN, STD, Data
from solution.data.views import Augment
from solution.runtime import ROOT


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SOLUTION_CACHE", str(tmp_path / "cache"))


def _photos(root, counts):
    """{"train/A": 20}: that many small noisy pictures in each folder."""
    chance = np.random.default_rng(0)
    for folder, count in counts.items():
        (root / folder).mkdir(parents=True)
        for number in range(count):
            image = chance.integers(0, 256, (12, 10, 3), dtype=np.uint8)
            Image.fromarray(image).save(root / folder / f"{number:03d}.png")
    return str(root)


FULL = {"train/A": 30, "train/B": 20, "val/A": 6, "val/B": 4}


def _small(path, **settings):
    return Data(path=path, **{"size": 8, "batch_size": 8, "workers": 0, **settings})


def _everything(loader):
    batches = list(loader)
    return torch.cat([images for images, _ in batches]), torch.cat([labels for _, labels in batches])


def _hash(loader, epoch):
    loader.set_epoch(epoch)
    images, labels = _everything(loader)
    return hashlib.sha256(images.numpy().tobytes() + labels.numpy().tobytes()).hexdigest()


def test_all_loaders_and_the_card(tmp_path):
    loaders = _small(_photos(tmp_path / "waste", FULL), calibration_images=7).open()
    assert (loaders.info.name, loaders.info.title, loaders.info.classes) == ("waste", "waste", ("A", "B"))
    assert loaders.info.counts == {"train": {"A": 27, "B": 18}, "dev": {"A": 3, "B": 2}, "val": {"A": 6, "B": 4}}
    assert loaders.info.split == "as given"
    assert (loaders.mean, loaders.std) == (MEAN, STD)
    assert [loaders.num_images(split) for split in loaders_file.ALL] == [45, 5, 10, 7]
    images, labels = next(iter(loaders.train))
    assert (images.shape, images.dtype, labels.dtype) == ((8, 3, 8, 8), torch.float32, torch.int64)
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert len(loaders.train) == 5
    images, labels = _everything(loaders.val)
    assert (images.shape, labels.tolist()) == ((10, 3, 8, 8), [0] * 6 + [1] * 4)


def test_judging_pixels_are_the_resized_pictures_normalized(tmp_path):
    data = _small(_photos(tmp_path / "waste", FULL), size=12)
    half = ((0.5,) * 3, (0.5,) * 3)
    images, _ = _everything(data.open(splits=("val",), normalization=half).val)
    picture = np.asarray(Image.open(tmp_path / "waste/val/A/000.png").resize((12, 12), Image.Resampling.BILINEAR))
    assert np.abs(images[0].permute(1, 2, 0).numpy() * 127.5 + 127.5 - picture).mean() < 1
    own = dataclasses.replace(data, mean=half[0], std=half[1]).open(splits=("val",))
    assert (own.mean, own.std) == half
    assert torch.equal(_everything(own.val)[0], images)
    default, _ = _everything(data.open(splits=("val",)).val)
    back = (default * torch.tensor(STD).view(3, 1, 1) + torch.tensor(MEAN).view(3, 1, 1)) * 2 - 1
    assert torch.allclose(back, images, atol=1e-5)


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_judging_split_alone_can_be_judged_but_not_learnt_from(tmp_path, split):
    data = _small(_photos(tmp_path / "mine", {f"{split}/A": 3, f"{split}/B": 2}))
    loaders = data.open(splits=("val",))
    assert loaders.num_images("val") == 5
    assert loaders.train is None
    assert loaders.info.counts == {"val": {"A": 3, "B": 2}}
    with pytest.raises(InputError, match=rf"no pictures to train with; the data set has a {split} split"):
        data.open(splits=("train",))


def test_without_a_val_split_a_stratified_one_is_made_and_recorded(tmp_path):
    data = _small(_photos(tmp_path / "waste", {"A": 40, "B": 20}), val_share=0.25, split_seed=3)
    info = data.info()
    assert info.split == "val is a stratified 25% of all, seed 3"
    assert info.counts == {"train": {"A": 27, "B": 13}, "dev": {"A": 3, "B": 2}, "val": {"A": 10, "B": 5}}
    parts, _ = data.parts(data.source())
    names = [{item.name for item in parts[split]} for split in ("train", "dev", "val")]
    assert len(set.union(*names)) == sum(map(len, names)) == 60
    assert {item.name for item in parts["calibration"]} <= names[0]
    assert parts == data.parts(data.source())[0]


def test_fewer_pictures_are_taken_of_every_class_alike(tmp_path):
    data = _small(_photos(tmp_path / "waste", FULL), most_images=20)
    assert data.info().counts == {"train": {"A": 11, "B": 7}, "dev": {"A": 1, "B": 1}, "val": {"A": 6, "B": 4}}
    parts, _ = data.parts(data.source())
    assert parts == data.parts(data.source())[0]
    assert _small(tmp_path / "waste", most_images=50).info() == _small(tmp_path / "waste").info()
    with pytest.raises(InputError, match=r"data\.most_images must be at least 0, got -1"):
        _small(tmp_path / "waste", most_images=-1)


def test_only_what_is_asked_for_is_decoded(tmp_path):
    data = _small(_photos(tmp_path / "waste", FULL))
    (tmp_path / "waste/train/A/000.png").write_bytes(b"")
    with warnings.catch_warnings(action="error"):
        data.open(splits=("val",))
    assert len(list((tmp_path / "cache").glob("*.npy"))) == 1


PRINT_HASHES = """
import sys
sys.path.insert(0, sys.argv[1])
from test_loaders import _hash, _small
for workers in (0, 1):
    loader = _small(sys.argv[2], workers=workers).open(seed=5, splits=("train",)).train
    print(_hash(loader, 3), _hash(loader, 0))
"""


def test_the_same_seed_and_epoch_give_the_same_batches_in_any_process(tmp_path):
    path = _photos(tmp_path / "waste", FULL)
    loader = _small(path).open(seed=5, splits=("train",)).train
    first, fourth = _hash(loader, 0), _hash(loader, 3)
    assert first != fourth
    assert _hash(loader, 0) == first
    assert _hash(_small(path).open(seed=6, splits=("train",)).train, 0) != first
    command = [sys.executable, "-c", PRINT_HASHES, str(Path(__file__).parent), path]
    fresh = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert fresh.stdout.split() == [fourth, first] * 2


def test_a_worker_that_is_not_forked_makes_the_same_views(tmp_path):
    views = _small(_photos(tmp_path / "waste", FULL)).open(splits=("train",)).train.dataset
    sent = pickle.dumps(views)
    assert len(sent) < 20_000
    pairs = [(2, index) for index in range(8)]
    assert torch.equal(pickle.loads(sent).__getitems__(pairs)[0], views.__getitems__(pairs)[0])


@pytest.mark.parametrize("workers", [0, 1])
def test_accelerate_keeps_order_views_and_epochs(tmp_path, workers):
    from accelerate import Accelerator

    data = _small(_photos(tmp_path / "waste", FULL), workers=workers)
    plain = data.open(splits=("train",)).train
    expected = [_hash(plain, epoch) for epoch in (0, 1, 7)]
    before = torch.get_rng_state()
    prepared = Accelerator(cpu=True).prepare(data.open(splits=("train",)).train)
    assert [_hash(prepared, epoch) for epoch in (0, 1, 7)] == expected
    assert torch.equal(torch.get_rng_state(), before)


def test_accelerate_shares_batches_out_among_processes(tmp_path):
    from accelerate.data_loader import prepare_data_loader

    data = _small(_photos(tmp_path / "waste", FULL))
    plain = data.open(splits=("train",)).train
    plain.set_epoch(4)
    batches = list(plain)
    shares = [prepare_data_loader(data.open(splits=("train",)).train, num_processes=2, process_index=i) for i in (0, 1)]
    for rank, share in enumerate(shares):
        share.set_epoch(4)
        for (images, _), (expected, _) in zip(share, batches[rank::2], strict=False):
            assert torch.equal(images, expected)


def test_balanced_sampling_reaches_the_loader(tmp_path):
    data = _small(_photos(tmp_path / "waste", {**FULL, "train/A": 200}), sampling="balanced")
    _, labels = _everything(data.open(splits=("train",)).train)
    assert 0.35 < labels.float().mean() < 0.65


def test_grey_arrays_come_out_as_three_equal_channels(tmp_path):
    np.savez(tmp_path / "digits.npz", x=np.arange(20 * 64, dtype=np.uint8).reshape(20, 8, 8), y=np.arange(20) % 2)
    data = _small(str(tmp_path / "digits.npz"), augment=Augment(crop_scale=(1, 1), color=0))
    flat = ((0.0,) * 3, (1.0,) * 3)
    loaders = data.open(normalization=flat)
    for split in loaders_file.ALL:
        images, _ = _everything(getattr(loaders, split))
        assert torch.equal(images[:, 0], images[:, 1])
        assert torch.equal(images[:, 0], images[:, 2])


def test_one_class_only_and_classes_without_pictures(tmp_path):
    with pytest.raises(InputError, match=r"one class only \(A\); there is nothing to tell apart"):
        _small(_photos(tmp_path / "one", {"train/A": 9, "val/A": 3})).open()
    with pytest.raises(InputError, match="no train pictures of C; add some, or remove the class"):
        _small(_photos(tmp_path / "empty", {**FULL, "train/C": 0})).open()
    data = _small(_photos(tmp_path / "unjudged", {**FULL, "train/C": 9}))
    with pytest.warns(UserWarning, match="no val pictures of C; these classes are not judged"):
        data.open()


def test_unreadable_pictures_are_skipped_below_one_percent(tmp_path):
    path = _photos(tmp_path / "waste", {**FULL, "train/A": 150})
    (tmp_path / "waste/train/A/007.png").write_bytes(b"")
    with pytest.warns(UserWarning, match=r"1 of 153 pictures cannot be read: train/A/007\.png"):
        loaders = _small(path).open(splits=("train",))
    assert loaders.num_images("train") == 152


def test_the_default_is_input_data_else_the_rendered_demo_data(tmp_path, monkeypatch):
    import solution.data.rendered as rendered

    def ensure(folder):
        _photos(folder, FULL)
        (folder / "rendered.json").write_text(json.dumps({}))
        return folder

    monkeypatch.setattr(loaders_file, "input_folder", lambda: tmp_path / "input")
    monkeypatch.setattr(rendered, "ensure_rendered", ensure)
    info = _small(None).info()
    assert (info.title, info.rendered) == ("rendered demo data", True)
    _photos(tmp_path / "input" / "data", FULL)
    info = _small(None).info()
    assert (info.title, info.rendered) == ("data", False)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 7}, r"data\.size must be at least 8, got 7"),
        ({"batch_size": 0}, r"data\.batch_size must be at least 1, got 0"),
        ({"workers": -1}, r"data\.workers must be at least 0, got -1"),
        ({"batch_size": 10**12}, r"data\.batch_size must be at most 65536, got 1000000000000"),
        ({"workers": 100_000}, r"data\.workers must be at most 256, got 100000"),
        ({"size": 1_000_000}, r"data\.size must be at most 4096, got 1000000"),
        ({"views": 10**9}, r"data\.views must be at most 1000, got 1000000000"),
        ({"dev_share": 0.0}, r"data\.dev_share must lie between 0 and 1, got 0\.0"),
        ({"val_share": 1.0}, r"data\.val_share must lie between 0 and 1, got 1\.0"),
        ({"sampling": "some"}, r"data\.sampling must be one of shuffle, balanced, got 'some'"),
        ({"cache_size": 10**9}, r"data\.cache_size must be at most 8192, got 1000000000"),
        ({"cache_size": 60}, r"data\.cache_size must be at least data\.size \(80\), got 60"),
        (
            {"std": (0.5, 0.0, 0.5)},
            r"data\.mean and data\.std must be three numbers each \(one of gray pictures\), std",
        ),
        (
            {"mean": (0.5,)},
            r"data\.mean and data\.std must be three numbers each \(one of gray pictures\), std",
        ),
        ({"calibration_images": 0}, r"data\.calibration_images must be at least 1, got 0"),
    ],
)
def test_impossible_settings_are_named(settings, message):
    with pytest.raises(InputError, match=message):
        Data(**settings)


def test_classes_take_the_order_that_is_given_and_no_others(tmp_path):
    path = _photos(tmp_path / "photos", FULL)
    turned = _small(path, classes=("b", "A")).open()
    assert turned.info.classes == ("B", "A")
    labels = [int(label) for _, batch in turned.val for label in batch]
    assert (labels.count(0), labels.count(1)) == (FULL["val/B"], FULL["val/A"])
    with pytest.raises(InputError, match="photos has the classes A, B, and the net A, C: name data of its own classes"):
        _small(path, classes=("A", "C")).open()


def test_unknown_splits_are_refused(tmp_path):
    with pytest.raises(InputError, match="there is no split 'choose'; there are train, dev, val, calibration"):
        _small(_photos(tmp_path / "waste", FULL)).open(splits=("choose",))


@pytest.mark.real_data
def test_recycle9_is_what_it_is(tmp_path):
    from solution.runtime import data_folder

    if data_folder() is None or not (data_folder() / "recycle9.tar").is_file():
        pytest.skip("no real images: set SOLUTION_DATA to the folder with recycle9.tar")
    loaders = Data(path=str(data_folder() / "recycle9.tar"), size=32).open(splits=("val",))
    assert loaders.info.name == "recycle9"
    assert {split: sum(counts.values()) for split, counts in loaders.info.counts.items()} == {
        "train": 7434, "dev": 827, "val": 1770,
    }  # fmt: skip
    images, labels = _everything(loaders.val)
    assert np.bincount(labels.numpy()).tolist() == list(loaders.info.counts["val"].values())
    assert abs(float(images.mean())) < 1
    assert 0.8 < float(images.std()) < 1.5


def test_folds_judge_on_parts_of_train_and_leave_val_alone(tmp_path):
    path = _photos(tmp_path / "waste", FULL)
    source = _small(path).source()
    judged = []
    for number in range(3):
        data = _small(path, folds=3, fold=number)
        parts, made = data.parts(source)
        assert made == f"val is part {number} of 3 of train, seed 0"
        judged += parts["val"]
        together = [*parts["train"], *parts["dev"], *parts["val"]]
        assert len(together) == len(set(together)) == 50
    assert sorted(item.name for item in judged) == sorted(i.name for i in source.items if i.split == "train")
    with pytest.raises(InputError, match=r"data.fold must be below data.folds \(3\), got 3"):
        _small(path, folds=3, fold=3)


@pytest.mark.parametrize(
    ("counts", "folds", "message"),
    [
        ({"train/A": 3, "train/B": 2}, 9, "class B has 2 pictures, fewer than 9 folds"),
        ({**FULL, "train/C": 2, "val/C": 9}, 3, "class C has 2 pictures, fewer than 3 folds: it would vanish"),
        ({**FULL, "train/C": 0, "val/C": 9}, 3, "no train pictures of C; add some, or remove the class"),
        ({"val/A": 9, "val/B": 9}, 3, "no pictures to train with"),
    ],
)
def test_folds_that_a_class_would_vanish_under_are_refused(tmp_path, counts, folds, message):
    with pytest.raises(InputError, match=message):
        _small(_photos(tmp_path / "waste", counts), folds=folds).open()


def test_everything_leaves_nothing_to_choose_with(tmp_path):
    loaders = _small(_photos(tmp_path / "waste", FULL), use_all_train=True).open()
    assert loaders.dev is None
    assert loaders.num_images("train") == 50


def test_a_context_has_what_a_step_may_use_and_no_val(tmp_path):
    loaders = _small(_photos(tmp_path / "waste", FULL)).open()
    context = loaders.context(seed=4, folder=tmp_path, log=str)
    assert (context.train, context.dev, context.calibration) == (loaders.train, loaders.dev, loaders.calibration)
    assert (context.classes, context.counts) == (("A", "B"), (27, 18))
    assert (context.seed, context.folder, context.log) == (4, tmp_path, str)
    assert torch.equal(context.example, next(iter(loaders.calibration))[0][:2])
    assert loaders.val not in vars(context).values()
    with pytest.raises(InputError, match="open the data with splits="):
        _small(tmp_path / "waste").open(splits=("val",)).context()


MEMORY = """
import resource, sys, tracemalloc, warnings, zipfile
import numpy as np
from solution.data.loaders import Data
from solution.data.views import Augment

def loaded(path, count):
    with zipfile.ZipFile(path, "w", int(sys.argv[2])) as archive:
        with archive.open("x.npy", "w", force_zip64=True) as file:
            about = {"descr": "|u1", "fortran_order": False, "shape": (count, 32, 32, 3)}
            np.lib.format.write_array_header_1_0(file, about)
            for _ in range(count // 1000):
                file.write(np.random.default_rng(0).integers(0, 256, (1000, 32, 32, 3), dtype=np.uint8).tobytes())
        with archive.open("y.npy", "w") as file:
            np.lib.format.write_array(file, np.arange(count) % 10)
    plain = Augment(crop_scale=(1, 1), flip=0, quarter_turn=0, color=0)
    loaders = Data(path=path, size=32, cache_size=32, workers=0, batch_size=100, augment=plain).open()
    assert sum(len(labels) for _, labels in loaders.train) + sum(len(labels) for _, labels in loaders.val) > 0.8 * count
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

small = loaded(sys.argv[1] + "/small.npz", 25_000)
print(loaded(sys.argv[1] + "/large.npz", 75_000) - small)
"""


@pytest.mark.long
@pytest.mark.parametrize("kind", ["stored", "compressed"])
def test_three_times_the_pictures_take_no_more_memory(tmp_path, kind):
    """50,000 more pictures are 150 MB: neither the array nor the cache nor an epoch may hold them."""
    how = {"stored": "0", "compressed": "8"}[kind]
    done = subprocess.run([sys.executable, "-c", MEMORY, str(tmp_path), how], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split()[-1]) < 40
