"""Which file of a tree belongs to which split and class, by the folders it lies in."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

from solution.contracts import InputError
from solution.data.files import Files
from solution.data.source import Item, in_order, sorted_classes, split_called

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
EXPECTED = (
    "<split>/<Class>/*.jpg (splits train, val, test), or <Class>/*.jpg, "
    "or train/*.jpg and val/*.jpg with train.csv and val.csv beside them"
)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The classes of a tree of files and its pictures."""

    classes: tuple[str, ...]
    items: tuple[Item, ...]


def is_picture(name: str) -> bool:
    """Whether a file is called like a picture."""
    return PurePosixPath(name).suffix.lower() in SUFFIXES


def root_of(files: Files) -> str:
    """The folders around everything, as "name/" ("" when there are none): "recycle9/" of recycle9/train/Glass/1.jpg."""
    root = ""
    names = [name for name in files.stamps if is_picture(name) or name.lower().endswith(".csv")]
    while names:
        first = {name[len(root) :].split("/")[0] for name in names}
        deep = any(name[len(root) :].count("/") >= 2 for name in names)
        (only, *others) = first
        if others or split_called(only) or not (deep or _tabled(names, root + only)):
            break
        root += only + "/"
    return root


def _tabled(names: Iterable[str], folder: str) -> bool:
    return any(name.startswith(folder + "/") and name.lower().endswith(".csv") for name in names)


def split_folders(files: Files, root: str) -> Layout | None:
    """<split>/<Class>/* below `root`, or None when there are none; a folder "train" full of trains is a class."""
    pictures = [name[len(root) :] for name in files.stamps if name.startswith(root) and is_picture(name)]
    splits = _splits(files, {name.split("/")[0] for name in pictures if name.count("/") >= 2})
    chosen = [name for name in pictures if name.count("/") == 2 and name.split("/")[0] in splits]
    return _layout(files, root, chosen, splits) if chosen else None


def _splits(files: Files, folders: Iterable[str]) -> dict[str, str]:
    """{folder: split} of those that are called like splits."""
    found = {folder: split for folder in sorted(folders) if (split := split_called(folder))}
    for split in found.values():
        same = [folder for folder in found if found[folder] == split]
        if len(same) > 1:
            raise InputError(f"{files.path}: {' and '.join(same)} both stand for the {split} split; keep one of them")
    return found


def class_folders(files: Files, root: str) -> Layout | None:
    """<Class>/* below `root`, or None when there are no such pictures, or only in folders called like splits."""
    pictures = [name[len(root) :] for name in files.stamps if name.startswith(root) and is_picture(name)]
    chosen = [name for name in pictures if name.count("/") == 1]
    if all(split_called(name.split("/")[0]) for name in chosen):
        return None
    return _layout(files, root, chosen, {})


def _layout(files: Files, root: str, chosen: list[str], splits: dict[str, str]) -> Layout:
    _warn_ignored(files, {root + name for name in chosen}, root)
    folders = {name.rpartition("/")[0] for name in chosen} | _empty_classes(files, root, splits)
    classes = sorted_classes(folder.rpartition("/")[2] for folder in folders)
    label = {name: number for number, name in enumerate(classes)}
    items = (
        Item(split=splits.get(name.split("/")[0], ""), label=label[name.split("/")[-2]], name=root + name)
        for name in chosen
    )
    return Layout(classes=classes, items=in_order(items))


def _empty_classes(files: Files, root: str, splits: dict[str, str]) -> set[str]:
    """Folders that stand where classes stand; those without pictures are classes too."""
    folders = {name[len(root) :] for name in files.folders if name.startswith(root)}
    if splits:
        return {name for name in folders if name.count("/") == 1 and name.split("/")[0] in splits}
    return {name for name in folders if name and "/" not in name}


def _warn_ignored(files: Files, used: Collection[str], root: str) -> None:
    """Name the files that lie in folders but are no pictures of a class."""
    ignored = sorted(name for name in files.stamps if name not in used and "/" in name[len(root) :])
    if ignored:
        warnings.warn(
            f"{files.path}: {len(ignored)} files are ignored (such as {ignored[0]}): "
            f"only {', '.join(SUFFIXES)} directly in a class folder count",
            stacklevel=2,
        )
