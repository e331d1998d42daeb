import numpy as np
import pytest
import torch

from solution.contracts import InputError
from solution.data.loaders import Data
from solution.data.source import UnreadableImage
from solution.evaluate.classify import find_photos, probabilities
from solution.input_spec import InputSpec

SPEC = InputSpec(mean=(0.5,) * 3, std=(0.2,) * 3, size=32)


def brightest(images):
    return images.mean((2, 3))


def test_words_name_files_folders_and_wildcards_once_each(photos, tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "[odd].png").write_bytes((photos / "val/red/0.png").read_bytes())
    red = [photos / f"val/red/{number}.png" for number in range(6)]
    assert find_photos([str(photos / "val/red")]) == red
    assert find_photos([str(photos / "val" / "r*" / "?.png"), str(red[3])]) == red
    assert len(find_photos([str(photos / "val" / "**" / "*.png")])) == len(find_photos([str(photos / "val")])) == 18
    assert find_photos([str(tmp_path)]) == [tmp_path / "[odd].png"] == find_photos([str(tmp_path / "[odd].png")])
    assert find_photos(["nowhere/*.png"])[0].name == "*.png"


def test_photos_are_prepared_as_for_the_evaluation(photos):
    seen = []

    def net(images):
        seen.append(images)
        return brightest(images)

    paths = find_photos([str(photos / "val")])
    found = list(probabilities(net, paths, SPEC))
    val = Data(path=str(photos)).fed_as(SPEC).open(splits=("val",)).val
    wanted = torch.cat([images for images, _ in val])
    assert torch.equal(torch.cat(seen), wanted)
    assert [path for path, _ in found] == paths
    shares = np.stack([shares for _, shares in found])
    assert np.allclose(shares, brightest(wanted).softmax(1), atol=1e-6)
    assert np.allclose(shares.sum(1), 1)


def test_what_cannot_be_read_is_named_in_its_place(photos, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    (tmp_path / "empty").mkdir()
    good = photos / "val/red/0.png"
    paths = [tmp_path / "broken.jpg", good, tmp_path / "empty", tmp_path / "absent.png"]
    broken, shares, empty, absent = (said for _, said in probabilities(brightest, paths, SPEC))
    assert shares.shape == (3,)
    for said, reason in (
        (broken, "broken.jpg: "),
        (empty, "a folder without pictures"),
        (absent, "no such file, and nothing that"),
    ):
        assert isinstance(said, UnreadableImage)
        assert reason in str(said)


def test_more_photos_than_a_batch_keep_their_order(photos):
    paths = find_photos([str(photos)])
    assert len(paths) == 90
    said = dict(probabilities(brightest, paths, SPEC))
    order = ("red", "green", "blue")
    assert all(order[shares.argmax()] == path.parent.name for path, shares in said.items())


def test_answers_that_are_no_numbers_are_refused(photos):
    with pytest.raises(InputError, match="answers with NaN or infinity"):
        list(probabilities(lambda images: brightest(images) / 0, [photos / "val/red/0.png"], SPEC))


def test_photos_are_found_in_whatever_unicode_form_their_names_are(photos, tmp_path):
    for name in ("e\u0301.png", "\u00e9.png"):
        (tmp_path / name).write_bytes((photos / "val/red/0.png").read_bytes())
    found = find_photos([str(tmp_path)])
    assert len(found) == 2
    assert all(path.is_file() for path in found)
