"""The pretrained pair behind the page, and a photo to drop."""

import tarfile

import pytest

from solution.data.rendered import ensure_rendered
from solution.demo import MAIN_SET, PRETRAINED
from solution.runtime import data_folder
from solution.serve.view import Panel, open_nets
from solution.serve.web import application

LIMIT_BYTES = 300_000


@pytest.fixture(scope="session")
def pair():
    """Before and After as the command serves them."""
    return [PRETRAINED / MAIN_SET / name for name in ("before.safetensors", "after.packed")]


@pytest.fixture(scope="session")
def photo(tmp_path_factory):
    """A real photo of a shoe; a rendered picture of a shirt where no photos are."""
    folder = data_folder()
    if folder is not None and (folder / "recycle9.tar").is_file():
        with tarfile.open(folder / "recycle9.tar") as archive:
            inside = (member for member in archive if "/val/Shoes/" in member.name and member.isfile())
            return archive.extractfile(next(inside)).read()
    drawn = ensure_rendered(tmp_path_factory.mktemp("sets") / "rendered", num_train=9, num_val=9)
    return next((drawn / "val" / "Shirts").iterdir()).read_bytes()


@pytest.fixture(scope="session")
def app(pair, tmp_path_factory):
    pytest.importorskip("flask", reason='the page needs the extra web: pip install -e ".[web]"')
    return application(Panel(nets=open_nets(pair, None, tmp_path_factory.mktemp("forms"))), LIMIT_BYTES)
