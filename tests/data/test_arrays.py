import hashlib
import io
import zipfile

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat
from torchvision import datasets

from solution.contracts import InputError
from solution.data import arrays as arrays_file
from solution.data.readers import open_source

X = np.arange(4 * 6 * 5, dtype=np.uint8).reshape(4, 6, 5)
Y = np.array([1, 0, 10, 1])


def _npz(tmp_path, **arrays):
    np.savez(tmp_path / "digits.npz", **arrays)
    return tmp_path / "digits.npz"


def test_grey_digits_become_three_equal_channels(tmp_path):
    source = open_source(_npz(tmp_path, x=X, y=Y))
    assert (source.name, source.classes, source.splits) == ("digits", ("0", "1", "10"), ("",))
    assert [(item.label, item.name) for item in source.items] == [
        (0, "x[000001]"), (1, "x[000000]"), (1, "x[000003]"), (2, "x[000002]"),
    ]  # fmt: skip
    image = source.image(source.items[0])
    assert (image == X[1][..., None]).all()
    assert image.shape == (6, 5, 3)
    assert (np.asarray(Image.open(io.BytesIO(source.read(source.items[0])))) == image).all()


@pytest.mark.parametrize(
    "keys",
    [
        ("x_train", "y_train", "x_test", "y_test"),
        ("train_images", "train_labels", "test_images", "test_labels"),
        ("X_training", "Y_training", "X_TEST", "Y_TEST"),
    ],
)
def test_splits_by_key(tmp_path, keys):
    source = open_source(_npz(tmp_path, **dict(zip(keys, (X, Y, X[:2], Y[:2]), strict=True))))
    assert source.splits == ("train", "test")
    assert [item.split for item in source.items].count("test") == 2


@pytest.mark.parametrize(
    "images",
    [
        np.stack([X] * 3, axis=-1),
        np.stack([X] * 3, axis=1),
        X[..., None],
        X / np.float32(255),
        (X / 255.0)[:, None],
        X.astype(np.int64),
    ],
)
def test_any_usual_shape_and_scale_of_images(tmp_path, images):
    if images.dtype.kind == "f":
        images = images / images.max()
    source = open_source(_npz(tmp_path, images=images, labels=Y[:, None]))
    scale = 255 / X.max() if images.dtype.kind == "f" else 1
    assert np.abs(source.image(source.items[0])[..., 0] - X[1] * scale).max() <= 0.51


def test_names_of_classes(tmp_path):
    assert open_source(_npz(tmp_path, x=X, y=np.array(["b", "a", "c", "b"]))).classes == ("a", "b", "c")
    assert open_source(_npz(tmp_path, x=X, y=Y % 2, classes=np.array(["zebra", "ape"]))).classes == ("zebra", "ape")
    with pytest.raises(InputError, match="the label 10 has no name: there are 2 class names"):
        open_source(_npz(tmp_path, x=X, y=Y, classes=np.array(["zebra", "ape"])))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a": X, "b": Y}, r"no images with labels among the keys a, b; expected x and y"),
        ({"x": X, "y": Y[:3]}, r"x has 4 images, but y 3 labels"),
        ({"x": X[0], "y": Y}, r"x has shape \(6, 5\); images are \(N, H, W\)"),
        ({"x": X * -1.0, "y": Y}, r"x holds float64 from -119\.0 to -0\.0; images are 0 to 255"),
        ({"x": X * np.nan, "y": Y}, r"x holds float64 from nan"),
        ({"x": X, "y": np.eye(4)}, r"y is float64 of shape \(4, 4\); labels are N whole numbers"),
        ({"x": X, "y": Y + 0.5}, r"labels are N whole numbers"),
        ({"x": X, "y": np.array([{}, 1, 2, 3], dtype=object)}, r"object arrays are never unpickled"),
    ],
)
def test_arrays_that_are_no_data_set(tmp_path, arrays, message):
    with pytest.raises(InputError, match=message):
        open_source(_npz(tmp_path, **arrays))


def test_a_broken_npz(tmp_path):
    path = _npz(tmp_path, x=X, y=Y)
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(InputError, match="cannot be read as an archive"):
        open_source(path)


def test_torchvision_sets_have_train_and_test(tmp_path, monkeypatch):
    class Fetched:
        classes = ("cat", "dog")

        def __init__(self, train):
            self.data = np.full((4 if train else 2, 3, 8, 8), 7, np.uint8)
            self.labels = np.array([0, 1] * (2 if train else 1))

    monkeypatch.setattr(arrays_file, "_fetch", lambda name, folder, train: Fetched(train))
    source = open_source("svhn")
    assert (source.name, source.classes, source.splits) == ("svhn", ("cat", "dog"), ("train", "test"))
    assert source.image(source.items[0]).shape == (8, 8, 3)


def test_svhn_is_read_in_its_own_format(tmp_path, monkeypatch):
    pictures = np.random.default_rng(0).integers(0, 256, (32, 32, 3, 4), dtype=np.uint8)
    listed = {}
    for split in ("train", "test"):
        path = tmp_path / f"{split}_32x32.mat"
        savemat(path, {"X": pictures, "y": np.array([[10], [1], [9], [10]], np.uint8)})
        listed[split] = ["", path.name, hashlib.md5(path.read_bytes()).hexdigest()]
    monkeypatch.setattr(datasets.SVHN, "split_list", listed)
    source = arrays_file.open_torchvision("svhn", tmp_path)
    assert len(source.classes) == 3
    shown = {item.label: source.image(item) for item in source.items if item.split == "train"}
    assert np.array_equal(shown[source.classes.index("1")], pictures[..., 1])
    assert np.array_equal(shown[source.classes.index("9")], pictures[..., 2])
    assert sum(item.label == source.classes.index("0") for item in source.items) == 4


def test_torchvision_without_a_network_says_so(tmp_path, monkeypatch):
    def fail(name, folder, train):
        raise OSError("no route to host")

    monkeypatch.setattr(arrays_file, "_fetch", fail)
    with pytest.raises(
        InputError, match=r"cifar10 is not in .*cifar10 and could not be downloaded \(no route to host\)"
    ):
        open_source("cifar10")


def test_an_array_that_claims_more_than_it_has_is_refused_at_once(tmp_path):
    path = tmp_path / "huge.npz"
    header = io.BytesIO()
    about = {"descr": "|u1", "fortran_order": False, "shape": (32_552_084, 32, 32, 3)}
    np.lib.format.write_array_header_1_0(header, about)
    for content, message in (
        (header.getvalue() + bytes(1000), r"x\.npy claims 100,000,002,048 bytes and has 1,000"),
        (header.getvalue()[:-1] + b"\n", r"x\.npy claims 100,000,002,048 bytes and has 0"),
    ):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x.npy", content)
        with pytest.raises(InputError, match=message):
            open_source(path)


def test_large_arrays_are_read_a_picture_at_a_time_and_are_equal(tmp_path, monkeypatch):
    monkeypatch.setenv("SOLUTION_CACHE", str(tmp_path / "cache"))
    images = np.random.default_rng(0).integers(0, 256, (9, 3, 6, 5), dtype=np.uint8)
    found = {}
    for save in (np.savez, np.savez_compressed):
        for small in (arrays_file._SMALL_BYTES, 0):
            monkeypatch.setattr(arrays_file, "_SMALL_BYTES", small)
            for values in (images, images.astype(np.int32), images / np.float32(255), np.asfortranarray(images)):
                save(tmp_path / "set.npz", x=values, y=np.arange(9) % 2, classes=np.array(["a", "b"]))
                source = open_source(tmp_path / "set.npz")
                found = np.stack([source.image(item) for item in source.items])
                order = [*range(0, 9, 2), *range(1, 9, 2)]
                assert np.array_equal(found, images.transpose(0, 2, 3, 1)[order])
    assert not list((tmp_path / "cache").iterdir())
    monkeypatch.setenv("SOLUTION_MAX_ARRAY_BYTES", "100")
    with pytest.raises(InputError, match=r"x\.npy has 810 bytes, more than 100: .*SOLUTION_MAX_ARRAY_BYTES"):
        open_source(tmp_path / "set.npz")
