"""What was downloaded -> `<split>/<Class>/<name>.jpg`, with near-duplicates inside one split."""

from __future__ import annotations

import dataclasses
import io
import json
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from solution.contracts import InputError
from solution.data.decode import MAX_UNREADABLE
from solution.data.describe import FULL_SIZE, Follow, Look, exact_groups, groups_of, look_at, near_groups
from solution.data.readers import RENDERED_MARK
from solution.data.source import Item, Source, UnreadableImage
from solution.runtime import written_whole
from solution.temporaries import folder_beside
from solution.text import safe_name

TOLERANCE = 12
"""Gray levels by which a channel may differ from the color of the padding (JPEG noise)."""

_NOISE_SHARE = 0.05
_FILLED_SHARE = 0.7
_BLURRED_LINES = 3
_MIN_SIDE = 8

Span = tuple[int, int]


def trim_borders(image: np.ndarray) -> np.ndarray:
    """The photo inside its padding, a view of the (H, W, 3) uint8 image; the image itself when there is none.

    The padding has one color, and most of each line where the photo begins differs from it.
    """
    color = _flat_edge(image)
    if color is None:
        return image
    content = _far_from(image, color)  # (H, W)
    rows, columns = _extent(content, axis=1), _extent(content, axis=0)
    if rows is None or columns is None:
        return image
    box = content[slice(*rows), slice(*columns)]
    inner_rows, inner_columns = _filled(box, rows, len(image)), _filled(box.T, columns, image.shape[1])
    if inner_rows is None or inner_columns is None:
        return image
    return image[slice(*inner_rows), slice(*inner_columns)]


def _flat_edge(image: np.ndarray) -> np.ndarray | None:
    for line in (image[0], image[-1], image[:, 0], image[:, -1]):
        color = np.median(line, axis=0)
        if _far_from(line, color).mean() <= _NOISE_SHARE:
            return color
    return None


def _far_from(pixels: np.ndarray, color: np.ndarray) -> np.ndarray:
    return (np.abs(pixels - color.astype(np.int16)) > TOLERANCE).any(axis=-1)


def _extent(content: np.ndarray, axis: int) -> Span | None:
    lines = np.flatnonzero(content.mean(axis=axis) > _NOISE_SHARE)
    return (int(lines[0]), int(lines[-1]) + 1) if len(lines) else None


def _filled(box: np.ndarray, span: Span, size: int) -> Span | None:
    """`span`, shrunk past blurred lines to the first filled one at each padded end; None if there is none."""
    filled = box.mean(axis=1) >= _FILLED_SHARE
    first = _first_filled(filled) if span[0] > 0 else 0
    last = _first_filled(filled[::-1]) if span[1] < size else 0
    if first is None or last is None or len(filled) - first - last < _MIN_SIDE:
        return None
    return span[0] + first, span[1] - last


def _first_filled(filled: np.ndarray) -> int | None:
    lines = np.flatnonzero(filled[:_BLURRED_LINES])
    return int(lines[0]) if len(lines) else None


RECORD = "prepare.json"
_JPEG_QUALITY = 90
_DETAIL = 4


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """How a data set is prepared.

    trim_borders  cut off flat padding around photos
    max_side      longest side in pixels, larger images are shrunk; 0 keeps every size
    val_share     share of each class that goes to val when the splits are made here
    resplit       make the splits anew although the source has them
    classes       (class of the source, class to write) for those to keep; empty keeps all under their names
    seed          of the splits
    """

    trim_borders: bool = False
    max_side: int = 128
    val_share: float = 0.15
    resplit: bool = False
    classes: tuple[tuple[str, str], ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.val_share < 1:
            raise InputError(f"the val share must lie between 0 and 1, not {self.val_share}")
        if self.max_side < 0 or 0 < self.max_side < 8:
            raise InputError(f"the longest side must be at least 8 pixels, or 0 to keep sizes, not {self.max_side}")
        for _, name in self.classes:
            if safe_name(name) != name:
                raise InputError(f"{name!r} cannot be the name of a class folder; {safe_name(name)!r} can")


@dataclass(frozen=True, kw_only=True)
class _Staged:
    """An image that is decoded, changed and written to `file`; `split` is "" until it has one."""

    look: Look
    file: Path
    folder: str
    split: str
    trimmed: bool
    shrunk: bool


def prepare(source: Source, target: Path, settings: Preparation, follow: Follow = iter) -> dict[str, Any]:
    """Write `source` to the folder `target`, or to the archive when it ends in .tar, and return its record.

    Of pictures with equal pixels one is kept (val's before train's), or none when their classes differ. Everything is
    built next to `target` and renamed at the end. Raises `InputError` when `target` exists and is not an empty
    folder, when a class is not there, and when more than 1 % of the images are unreadable.
    """
    _check_target(source, target)
    names = _class_names(source, settings)
    target.parent.mkdir(parents=True, exist_ok=True)
    with folder_beside(target) as temporary:
        stage, result = temporary / "stage", temporary / "result"
        stage.mkdir()
        staged, unreadable = _stage(source, names, settings, (stage, follow))
        kept, copies = _without_copies(staged)
        groups = near_groups([image.look.signature for image in kept])
        kept = _split(kept, groups, source, settings)
        _arrange(kept, result)
        record = _record(source, settings, kept, groups) | {"unreadable": unreadable, "copies_dropped": copies}
        if source.rendered:
            (result / RENDERED_MARK).write_text("{}\n")
        (result / RECORD).write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        _publish(result, target)
    return record


def _check_target(source: Source, target: Path) -> None:
    if target.name.lower().endswith((".zip", ".gz", ".tgz", ".npz")):
        raise InputError(f"{target}: the result is a folder, or an archive that ends in .tar; choose one of the two")
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise InputError(f"{target} exists already; nothing is overwritten: remove it or choose another name")
    if target.resolve().is_relative_to(Path(source.path).resolve()):
        raise InputError(f"{target} lies inside the source {source.path}; choose a place outside it")


def _class_names(source: Source, settings: Preparation) -> dict[int, str]:
    """{label in the source: folder to write}: names of classes are safe parts of a path, no two alike but for case."""
    wanted = dict(settings.classes or zip(source.classes, source.classes, strict=True))
    unknown = [name for name in wanted if name not in source.classes]
    if unknown:
        raise InputError(f"{source.path} has no class {unknown[0]!r}; its classes are {', '.join(source.classes)}")
    taken: set[str] = set()
    folders = {name: safe_name(name, taken) for name in dict.fromkeys(wanted.values())}
    return {source.classes.index(name): folders[folder] for name, folder in wanted.items()}


def _stage(
    source: Source, names: dict[int, str], settings: Preparation, where: tuple[Path, Follow]
) -> tuple[list[_Staged], list[str]]:
    """Decode, change and write every wanted image; also what is wrong with those that cannot be."""
    folder, follow = where
    items = [item for item in source.items if item.label in names]
    at_least = settings.max_side * _DETAIL or FULL_SIZE
    staged: dict[int, _Staged] = {}
    unreadable: dict[int, str] = {}
    for position, image in follow(source.each_image(items, at_least)):
        if isinstance(image, UnreadableImage):
            unreadable[position] = str(image)
        else:
            item, file = items[position], folder / f"{position}.jpg"
            staged[position] = _stage_one(image, item, (file, names[item.label]), settings)
    _check_unreadable(source, list(unreadable.values()), len(items))
    return [staged[position] for position in sorted(staged)], [unreadable[key] for key in sorted(unreadable)]


def _stage_one(image: np.ndarray, item: Item, place: tuple[Path, str], settings: Preparation) -> _Staged:
    from PIL import Image

    file, folder = place
    inner = trim_borders(image) if settings.trim_borders else image
    small = shrink(inner, settings.max_side)
    picture = io.BytesIO()  # Pillow does not see when a file takes less than it is given
    Image.fromarray(small).save(picture, Image.registered_extensions()[file.suffix.lower()], quality=_JPEG_QUALITY)
    file.write_bytes(picture.getvalue())
    return _Staged(
        look=look_at(item, small),
        file=file,
        folder=folder,
        split=item.split,
        trimmed=inner.shape != image.shape,
        shrunk=small.shape != inner.shape,
    )


def _check_unreadable(source: Source, wrong: Sequence[str], num_items: int) -> None:
    if num_items == 0:
        raise InputError(f"{source.path}: there are no images of the chosen classes")
    if len(wrong) > MAX_UNREADABLE * num_items:
        shown = "; ".join(wrong[:5]) + ("; ..." if len(wrong) > 5 else "")
        raise InputError(
            f"{source.path}: {len(wrong)} of {num_items} images are unreadable, more than "
            f"{MAX_UNREADABLE:.0%}: {shown}. Download the data again, or remove these files"
        )


def shrink(image: np.ndarray, max_side: int) -> np.ndarray:
    """The (H, W, 3) uint8 image, its longest side at most `max_side` pixels; 0 leaves it as it is."""
    from PIL import Image

    longest = max(image.shape[:2])
    if not max_side or longest <= max_side:
        return image
    height, width = (max(1, round(side * max_side / longest)) for side in image.shape[:2])
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS))


def _without_copies(staged: list[_Staged]) -> tuple[list[_Staged], list[str]]:
    dropped: set[int] = set()
    for group in exact_groups([image.look.signature for image in staged]):
        agree = len({staged[position].folder for position in group}) == 1
        keeper = min(group, key=lambda position: (staged[position].split != "val", position))
        dropped |= set(group) - ({keeper} if agree else set())
    kept = [image for position, image in enumerate(staged) if position not in dropped]
    return kept, [staged[position].look.item.title for position in sorted(dropped)]


def _split(kept: list[_Staged], groups: np.ndarray, source: Source, settings: Preparation) -> list[_Staged]:
    if not makes_splits(source, settings):
        return kept
    labels = np.array([image.look.item.label for image in kept], int)
    is_val = grouped_split(labels, groups, settings.val_share, settings.seed)
    if not is_val.any() or is_val.all():
        raise InputError(f"{source.path}: {len(kept)} images are too few to split off {settings.val_share:.0%} for val")
    return [
        dataclasses.replace(image, split="val" if chosen else "train")
        for image, chosen in zip(kept, is_val, strict=True)
    ]


def makes_splits(source: Source, settings: Preparation) -> bool:
    """Whether the splits are made here: on demand, or when the source has none or a train split alone."""
    return settings.resplit or source.splits in ((), ("",), ("train",))


def grouped_split(labels: np.ndarray, groups: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Which images are val, (N,) bool: about `share` of each class, and no group in both splits.

    Groups come in random order; one is taken when that brings the class counts of val no further from their goal.
    """
    num_classes = int(labels.max(initial=0)) + 1
    totals = np.bincount(labels, minlength=num_classes)
    missing = np.maximum(np.rint(share * totals), totals > 1).astype(int)  # (classes,)
    members = defaultdict(list)
    for position, group in enumerate(groups.tolist()):
        members[group].append(position)
    is_val = np.zeros(len(labels), bool)
    for group in np.random.default_rng(seed).permutation(sorted(members)).tolist():
        left = missing - np.bincount(labels[members[group]], minlength=num_classes)
        if np.abs(left).sum() <= np.abs(missing).sum():
            is_val[members[group]] = True
            missing = left
    return is_val


def _arrange(kept: Sequence[_Staged], result: Path) -> None:
    taken: defaultdict[Path, set[str]] = defaultdict(set)
    result.mkdir()
    for image in kept:
        stem = re.sub(r"[^\w.~-]+", "_", unicodedata.normalize("NFC", PurePosixPath(image.look.item.name).stem))
        place = result / image.split / image.folder
        place.mkdir(parents=True, exist_ok=True)
        image.file.rename(place / f"{safe_name(stem.strip('_') or 'image', taken[place])}.jpg")


def _record(source: Source, settings: Preparation, kept: Sequence[_Staged], groups: np.ndarray) -> dict[str, Any]:
    """What was done, for `RECORD`."""
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for image in kept:
        counts[image.split][image.folder] += 1
    near = groups_of(groups)
    return {
        "source": source.name,
        "arguments": dataclasses.asdict(settings) | {"classes": dict(settings.classes)},
        "splits": "made here" if makes_splits(source, settings) else "of the source",
        "counts": {split: dict(sorted(counts[split].items())) for split in sorted(counts)},
        "trimmed": sum(image.trimmed for image in kept),
        "shrunk": sum(image.shrunk for image in kept),
        "near_duplicate_groups": len(near),
        "near_duplicate_groups_across_splits": sum(len({kept[one].split for one in group}) > 1 for group in near),
    }


def _publish(result: Path, target: Path) -> None:
    if target.suffix == ".tar":
        with written_whole(target) as temporary:
            _write_tar(result, temporary, target.stem)
    else:
        result.rename(target)


def _write_tar(folder: Path, path: Path, root: str) -> None:
    """Pack `folder` under the name `root`; equal contents make equal archives."""
    import tarfile

    with tarfile.open(path, "w") as archive:
        for file in sorted(file for file in folder.rglob("*") if file.is_file()):
            member = tarfile.TarInfo(f"{root}/{file.relative_to(folder).as_posix()}")
            member.size, member.mode = file.stat().st_size, 0o644
            with file.open("rb") as content:
                archive.addfile(member, content)
