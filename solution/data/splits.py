"""Which picture belongs to which split and class: by its folders, by a table beside them, or by a seeded draw.

Train learns, dev decides, val judges: no step, search or early stopping may look at val. Only what judges a finished
net reads it: rows (`tasks.judge`), exported files, reports, the verdict of `shrink`. `StepContext` has no field for it.
Dev is a part of train that `loaders` sets apart; a folder never is dev. Draws are pure functions of labels and seed.
"""

from __future__ import annotations

import io
import posixpath
import re
import warnings
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np

from solution.contracts import InputError
from solution.data.source import Files, Item, UnreadableImage, class_name, in_order, one_form, sorted_classes
from solution.runtime import limit
from solution.text import printable

_CALLED = {
    "train": "train|training",
    "val": "val|valid|validate|validation|dev|devel|development",
    "test": "test|testing|eval|evaluation|hold[ _-]?out",
}
_AFTER = r"([ _-]?(set|data|dataset|split|images?|imgs?|photos?|pictures))?[ _-]?\d*"
KNOWN = "train, training; val, valid, validation, dev; test, testing, eval, evaluation, holdout"


def split_called(folder: str) -> str | None:
    """The split that a folder or table of this name stands for, or None: "Validation_set" is "val", "train2017" train.

    What others call dev is val here: it is there from the start, and judges. A split called test judges without one.
    """
    return next((split for split, names in _CALLED.items() if re.fullmatch(f"({names}){_AFTER}", folder.lower())), None)


def stratified(labels: np.ndarray, share: float, seed: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Two sets of positions, (rest, part), each ascending: `part` has the fraction `share` of every class.

    labels: (N,) int64. Every class that has at least two pictures gives at least one to each side; a single picture
    stays in the rest. Raises `InputError` when a side would be empty.
    """
    if not 0 < share < 1:
        raise InputError(f"share must lie between 0 and 1, got {share}")
    rng = np.random.default_rng(seed)
    part = np.concatenate([_some(np.flatnonzero(labels == label), share, rng) for label in np.unique(labels)])
    rest = np.setdiff1d(np.arange(len(labels)), part)
    if not len(part) or not len(rest):
        raise InputError(f"{len(labels)} pictures are too few to split off {share:.0%} of each class")
    return tuple(rest.tolist()), tuple(sorted(part.tolist()))


def fold(
    labels: np.ndarray, folds: int, number: int, seed: int, names: Sequence[str] = ()
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(rest, part), each ascending: `part` is one of `folds` stratified parts of the positions, counted from 0.

    Over all numbers every position is in exactly one part. `InputError` when a class has fewer pictures than folds:
    it would vanish from a part. names: those of the classes, for the message.
    """
    if not 0 <= number < folds or folds < 2:
        raise InputError(f"fold must lie between 0 and {folds - 1} of at least 2 folds, got fold {number} of {folds}")
    found, counts = np.unique(labels, return_counts=True)
    if len(labels) and counts.min() < folds:
        fewest = found[counts.argmin()]
        raise InputError(
            f"class {names[fewest] if names else fewest} has {counts.min()} pictures, fewer than {folds} folds: "
            "it would vanish from one; take fewer folds or add pictures"
        )
    rng = np.random.default_rng([seed, folds])
    shuffled = [rng.permutation(np.flatnonzero(labels == name)) for name in found]
    # Dealt out class after class without starting anew, so that the parts differ by one picture at most.
    part = np.concatenate(shuffled)[number::folds]
    rest = np.setdiff1d(np.arange(len(labels)), part)
    return tuple(rest.tolist()), tuple(sorted(part.tolist()))


def _some(positions: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    wanted = round(len(positions) * share)
    wanted = min(max(wanted, 1), len(positions) - 1) if len(positions) > 1 else 0
    return rng.permutation(positions)[:wanted]


SUFFIXES = (".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif")
EXPECTED = (
    "<split>/<Class>/*.jpg (splits train, val, test), or <Class>/*.jpg, "
    f"or train/*.jpg and val/*.jpg with train.csv and val.csv beside them; pictures end in {', '.join(SUFFIXES)}"
)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The classes of a tree of files and its pictures."""

    classes: tuple[str, ...]
    items: tuple[Item, ...]


def is_picture(name: str) -> bool:
    """Whether a file is called like a picture."""
    return posixpath.splitext(name)[1].lower() in SUFFIXES


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
    others = [name for name in pictures if name.count("/") == 2 and name.split("/")[0] not in splits]
    if chosen and others:
        counts = Counter(name.split("/")[0] for name in others)
        unknown = ", ".join(f"{printable(name)}/ ({count:,} pictures)" for name, count in counts.most_common(5))
        warnings.warn(
            f"{files.path}: {unknown} is no split that is known, and is not used; rename it: {KNOWN}", stacklevel=2
        )
    return _layout(files, root, chosen, splits, noted=others) if chosen else None


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


def _layout(files: Files, root: str, chosen: list[str], splits: dict[str, str], noted: Sequence[str] = ()) -> Layout:
    _warn_ignored(files, {root + name for name in (*chosen, *noted)}, root)
    folders = {name.rpartition("/")[0] for name in chosen} | _empty_classes(files, root, splits)
    classes = sorted_classes(class_name(folder.rpartition("/")[2]) for folder in folders)
    label = {name: number for number, name in enumerate(classes)}
    items = (
        Item(split=splits.get(name.split("/")[0], ""), label=label[class_name(name.split("/")[-2])], name=root + name)
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
        endings = Counter(PurePosixPath(name).suffix.lower() or "without an ending" for name in ignored)
        kinds = ", ".join(f"{count:,} {printable(ending)}" for ending, count in endings.most_common(5))
        warnings.warn(
            f"{files.path}: {len(ignored)} files are ignored (such as {printable(ignored[0])}; {kinds}): "
            f"only {', '.join(SUFFIXES)} directly in a class folder count; convert photos of other kinds",
            stacklevel=2,
        )


_COLUMNS = ("file", "label")


def flat_folders(files: Files, root: str) -> Layout | None:
    """The layout by the tables that describe the flat folders below `root`, or None when there are no tables.

    Raises `InputError`, which names the rows, when a table and its folder do not agree.
    """
    tables = _tables(files, root)
    if not tables:
        return None
    rows = {split: _rows(files, table, root) for split, table in tables.items()}
    _refuse_without_table(files, root, tables)
    classes = sorted_classes(label for labels in rows.values() for label in labels.values())
    number = {name: position for position, name in enumerate(classes)}
    items = (
        Item(split=split, label=number[label], name=name)
        for split, labels in rows.items()
        for name, label in labels.items()
    )
    return Layout(classes=classes, items=in_order(items))


def _tables(files: Files, root: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in sorted(files.stamps):
        path = PurePosixPath(name)
        split = split_called(path.stem)
        if split and path.suffix.lower() == ".csv" and name == root + path.name:
            if split in found:
                raise InputError(f"{files.path}: {found[split]} and {name} stand for one split; keep one of them")
            found[split] = name
    return found


def _rows(files: Files, table: str, root: str) -> dict[str, str]:
    """{path of a picture: its label} of one table."""
    folder = _folder_of(files, table, root)
    labels: dict[str, str] = {}
    missing, unlabeled, twice = [], [], []
    for number, (file, label) in enumerate(_read(files, table), start=2):
        name = _find(files, root, folder, file)
        if name is None:
            missing.append(f"row {number} ({file})")
        elif not label:
            unlabeled.append(f"row {number} ({file})")
        elif labels.setdefault(name, label) != label:
            twice.append(f"row {number} ({file})")
    _refuse(files, table, missing, f"name files that are not in {folder}/; add the files or delete the rows")
    _refuse(files, table, unlabeled, "have no label; fill it in or delete the rows")
    _refuse(files, table, twice, "give a file a second, different label; keep one of them")
    extra = [name for name in sorted(files.stamps) if name.startswith(folder + "/") and is_picture(name)]
    extra = [name for name in extra if name not in labels]
    _refuse(files, table, extra, "are not in the table; add their rows or delete the files")
    return labels


def _read(files: Files, table: str) -> list[tuple[str, str]]:
    import pandas

    try:
        data = files.read(table)
        found = {str(column).strip().lower(): column for column in pandas.read_csv(io.BytesIO(data), nrows=0).columns}
        most = limit("COLUMNS", 1000)
        if len(found) > most:
            raise ValueError(f"{len(found):,} columns are more than {most:,}: set SOLUTION_MAX_COLUMNS to raise that")
        lacking = [column for column in _COLUMNS if column not in found]
        if lacking:
            raise InputError(
                f"{files.path}: {table} lacks the column {' and '.join(lacking)}; it has {', '.join(found)}"
            )
        frame = pandas.read_csv(io.BytesIO(data), dtype=str, keep_default_na=False)
    except InputError:
        raise
    except (ValueError, UnreadableImage) as error:
        raise InputError(f"{files.path}: {table} cannot be read as a table ({error})") from None
    columns = (frame[found[column]] for column in _COLUMNS)
    return [(file.strip(), class_name(label.strip())) for file, label in zip(*columns, strict=True)]


def _folder_of(files: Files, table: str, root: str) -> str:
    split = split_called(PurePosixPath(table).stem)
    folders = [name for name in sorted(files.folders | _parents(files)) if split_called(name[len(root) :]) == split]
    if not folders:
        raise InputError(f"{files.path}: {table} has no folder {split}/ with its pictures beside it")
    return folders[0]


def _parents(files: Files) -> set[str]:
    return {name.rsplit("/", 1)[0] for name in files.stamps if "/" in name}


def _find(files: Files, root: str, folder: str, file: str) -> str | None:
    """A picture may be named by its path in the folder, or by its path beside the table."""
    candidates = (one_form(f"{folder}/{file}"), one_form(f"{root}{file}"))
    return next((name for name in candidates if name in files.stamps), None)


def _refuse_without_table(files: Files, root: str, tables: dict[str, str]) -> None:
    for name in sorted(files.stamps):
        folder, _, file = name[len(root) :].partition("/")
        split = split_called(folder)
        if split and "/" not in file and is_picture(file) and split not in tables:
            raise InputError(f"{files.path}: {root}{folder}/ has pictures but no table {split}.csv beside it")


def _refuse(files: Files, table: str, what: list[str], why: str) -> None:
    if what:
        shown = ", ".join(what[:5]) + (f" and {len(what) - 5} more" if len(what) > 5 else "")
        raise InputError(f"{files.path}: {table}: {shown}: {why}")
