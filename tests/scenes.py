"""Pictures with boxes as a small archive: a bright square and a bright disc on each, 64 x 48 px."""

import io
import tarfile

import cv2
import numpy as np


def write_scenes(path, num_train=8, num_val=4):
    """Write the archive and return its path; both classes occur once on every picture."""
    chance = np.random.default_rng(0)
    members = {"shapes/classes.txt": b"square\ndisc\n"}
    for split, count in (("train", num_train), ("val", num_val)):
        for number in range(count):
            pixels, label = _scene(chance)
            members[f"shapes/images/{split}/{number}.png"] = cv2.imencode(".png", pixels)[1].tobytes()
            members[f"shapes/labels/{split}/{number}.txt"] = label.encode()
    return write_tar(path, members)


def write_tar(path, members):
    """Write an archive of {name: bytes} and return its path."""
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def _scene(chance):
    pixels = chance.integers(0, 60, (48, 64, 3), dtype=np.uint8)
    left, right = (int(value) for value in chance.integers(12, 20, 2))
    up, down = (int(value) for value in chance.integers(14, 30, 2))
    cv2.rectangle(pixels, (left - 8, up - 8), (left + 7, up + 7), (255, 200, 0), -1)
    cv2.circle(pixels, (32 + right, down), 8, (0, 200, 255), -1)
    lines = [(0, left / 64, up / 48, 16 / 64, 16 / 48), (1, (32.5 + right) / 64, (down + 0.5) / 48, 17 / 64, 17 / 48)]
    return pixels, "\n".join(" ".join(map(str, line)) for line in lines)
