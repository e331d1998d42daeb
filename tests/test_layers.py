"""A file imports from lower layers and from its own folder only; imports inside functions count too."""

import ast
import graphlib
import subprocess
import sys

import pytest

from solution.runtime import ROOT

LAYERS = {
    "temporaries": 0,
    "text": -2,
    "batches": -1,
    "copying": -1,
    "contracts": 0,
    "input_spec": 0,
    "budget": 1,
    "runtime": 1,
    "settings": 1,
    "locks": 1,
    "shell": 2,
    "graph": 1,
    "liveness": 1,
    "run_folder": 2,
    "data": 2,
    "models": 2,
    "losses": 2,
    "evaluate": 4,
    "tasks": 5,
    "train": 5,
    "compress": 6,
    "formats": 6,
    "registry": 7,
    "checkpoint": 8,
    "export": 9,
    "report": 9,
    "opening": 10,
    "pipeline": 11,
    "shrink": 11,
    "api": 12,
    "recipes": 12,
    "search": 13,
    "demo": 13,
    "serve": 13,
    "commands": 14,
    "__main__": 15,
}
FILES = sorted((ROOT / "solution").rglob("*.py"))


def part_of(path):
    return path.relative_to(ROOT / "solution").with_suffix("").parts[0]


def imported_parts(path):
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            if name.startswith("solution."):
                yield name.split(".")[1], node.lineno


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_imports_from_lower_layers_only(path):
    part = part_of(path)
    if part == "__init__":
        return
    assert part in LAYERS, f"{part} has no layer yet: add it to LAYERS and to the tree in README.md"
    for other, line in imported_parts(path):
        fine = other == part or LAYERS[other] < LAYERS[part]
        assert fine, f"{path}:{line}: {part} (layer {LAYERS[part]}) imports {other} (layer {LAYERS[other]})"


def imports_of(path, modules):
    """The files of the package that `path` imports, wherever the import stands."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield (inner if inner in modules else node.module), alias.name
        elif isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)


def module_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


def test_no_circle_between_files():
    modules = {module_of(path): path for path in FILES}
    edges = {name: {other for other, _ in imports_of(path, modules)} & modules.keys() for name, path in modules.items()}
    sorter = graphlib.TopologicalSorter({name: others - {name} for name, others in edges.items()})
    sorter.prepare()  # raises CycleError, which names the files, also those of one folder


def test_no_file_takes_private_names_of_another():
    modules = {module_of(path) for path in FILES}
    for path in FILES:
        for other, name in imports_of(path, modules):
            private = name.startswith("_") and not name.startswith("__")
            assert not (other in modules and private), f"{path} takes {name} from {other}"


def test_no_file_is_longer_than_400_lines():
    long = {str(path): len(path.read_text().splitlines()) for path in FILES}
    assert max(long.values()) <= 400, max(long, key=long.get)


def test_importing_the_package_and_its_command_line_loads_nothing_heavy():
    code = (
        "import sys, solution, solution.__main__;"
        "print([m for m in ('torch', 'sklearn', 'pandas', 'albumentations', 'timm', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


def test_nothing_is_unpickled():
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            name = ast.unparse(node.func)
            where = f"{path}:{node.lineno}"
            if name == "torch.load":
                options = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                assert options.get("weights_only") == "True", f"{where}: torch.load without weights_only=True"
            banned = ("pickle", "joblib", "exec", "eval", "importlib")
            assert name.split(".")[0] not in banned or path.name == "own_code.py", f"{where}: {name}"
