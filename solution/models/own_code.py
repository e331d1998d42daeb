"""Nets of the user's own code: ``my_model.py:Net(width=32)`` or ``package.module:make_net``.

This is the one place where code of elsewhere is run, and only code that the user names himself, as a word of the
command line or of a call. No file of weights, no header and no folder can name it.
"""

from __future__ import annotations

import ast
import copy
import dataclasses
import importlib
import importlib.util
import inspect
import os
import re
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from solution.contracts import InputError
from solution.text import did_you_mean

_FORM = re.compile(r"(?P<where>.+?)::?(?P<attribute>[A-Za-z_]\w*(?:\.\w+)*)(?:\((?P<arguments>.*)\))?", re.DOTALL)
_NAMED = "FEATHERWEIGHT_NAMED_CODE"
"""The variable that hands processes started by this one the code that the user has named."""
_NUM_CLASSES = ("num_classes", "n_classes", "nclasses", "classes_num", "num_labels", "n_class")
"""What constructors call the number of classes."""
_MOST_NAMED = 6


@dataclass(frozen=True, kw_only=True)
class OwnNet:
    """Settings of a net of the user's own code.

    where       a .py file, or a module that Python finds
    attribute   a class, a function that returns a net, or a net
    arguments, named  literals that it is called with
    """

    where: str
    attribute: str
    arguments: tuple[Any, ...] = ()
    named: tuple[tuple[str, Any], ...] = ()

    @classmethod
    def of(cls, text: str) -> OwnNet | None:
        """The net that `text` names; None when it has another form. `InputError` for arguments that are no literals."""
        found = _FORM.fullmatch(text)
        if found is None:
            return None
        arguments, named = _literals(text, found["arguments"] or "")
        return cls(where=found["where"], attribute=found["attribute"], arguments=arguments, named=named)

    def with_classes(self, num_classes: int | None) -> OwnNet:
        """The same net for a number of classes, when its constructor takes one and the text does not give it."""
        if num_classes is None:
            return self
        try:
            parameters = list(inspect.signature(self.target()).parameters)[len(self.arguments) :]
        except (TypeError, ValueError):
            return self
        given = {name for name, _ in self.named}
        name = next((name for name in parameters if name in _NUM_CLASSES and name not in given), "")
        return dataclasses.replace(self, named=(*self.named, (name, num_classes))) if name else self

    def __str__(self) -> str:
        words = [*map(repr, self.arguments), *(f"{name}={value!r}" for name, value in self.named)]
        return f"{self.where}:{self.attribute}" + (f"({', '.join(words)})" if words else "")

    def target(self) -> Any:
        """What the text names, not yet called. Its file is run, once a process."""
        contents = _module(self.where)
        target: Any = contents
        for word in self.attribute.split("."):
            if not hasattr(target, word):
                raise InputError(self._no_such(contents, word))
            target = getattr(target, word)
        return target

    def build(self) -> nn.Module:
        """A fresh net. `InputError` that shows the user's own line when his code fails."""
        named_now = os.environ.get(_NAMED, "").split("\n")
        if str(self) not in named_now:
            os.environ[_NAMED] = "\n".join([*filter(None, named_now), str(self)])
        target, named = self.target(), dict(self.named)
        if isinstance(target, nn.Module):
            return copy.deepcopy(target)
        if not callable(target):
            raise InputError(f"{self.where}: {self.attribute} is a {type(target).__name__}, neither a class nor a net")
        self._check(target, named)
        try:
            net = target(*self.arguments, **named)
        except InputError:
            raise
        except (Exception, SystemExit) as error:
            raise InputError(f"{self} cannot be built: {_own_line(error, self.where)}") from error
        if not isinstance(net, nn.Module):
            raise InputError(f"{self} gives a {type(net).__name__}, no torch.nn.Module: name a net's class or function")
        return net

    def _no_such(self, contents: ModuleType, word: str) -> str:
        own = [
            name
            for name, value in vars(contents).items()
            if inspect.isclass(value) and issubclass(value, nn.Module) and value.__module__ == contents.__name__
        ]
        hint = did_you_mean(word, [name for name in vars(contents) if name[0] != "_"])
        there = f"; its nets are {', '.join(own)}" if own else ""
        return f"{self.where} has no {word}{hint}{there}: name one, {self.where}:NAME"

    def _check(self, target: Callable[..., Any], named: dict[str, Any]) -> None:
        """`InputError` that shows how to write it when the constructor wants other arguments."""
        try:
            signature = inspect.signature(target)
        except (TypeError, ValueError):
            return  # written in C
        try:
            signature.bind(*self.arguments, **named)
        except TypeError as error:
            blank = [
                name
                for name, one in list(signature.parameters.items())[len(self.arguments) :]
                if one.default is one.empty and one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)
                and name not in named
            ]  # fmt: skip
            words = [*map(repr, self.arguments), *(f"{name}={value!r}" for name, value in named.items())]
            example = ", ".join([*words, *(f"{name}=..." for name in blank)])
            raise InputError(
                f"{self.attribute}{signature} cannot be called like this ({error}): write "
                f"'{self.where}:{self.attribute}({example if blank else '...'})'"
            ) from error


def suggested(path: Path) -> str:
    """How MODEL names the nets in a file of code: classes that look like nets, else all classes, else functions.

    The file is read, not run. `InputError` when it is no Python.
    """
    try:
        body = ast.parse(path.read_bytes()).body
    except (OSError, SyntaxError, ValueError, MemoryError, RecursionError) as error:
        raise InputError(f"{path} cannot be read as Python ({error})") from error
    classes = [node for node in body if isinstance(node, ast.ClassDef)]
    nets = [node.name for node in classes if any("Module" in ast.unparse(base) for base in node.bases)]
    functions = [node.name for node in body if isinstance(node, ast.FunctionDef)]
    names = nets or [node.name for node in classes] or functions or ["NAME"]
    return " or ".join(f"{path}:{name}" for name in names[:_MOST_NAMED])


def was_named(text: str) -> bool:
    """Whether the user has named this code in this command: then files of it may be opened again, also by processes
    that it has started."""
    return text in os.environ.get(_NAMED, "").split("\n")


def _literals(text: str, arguments: str) -> tuple[tuple[Any, ...], tuple[tuple[str, Any], ...]]:
    """The arguments, read as literals: nothing is evaluated."""
    try:
        call = ast.parse(f"net({arguments})", mode="eval").body
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
            raise ValueError("no call")
        named = tuple((word.arg or "**", ast.literal_eval(word.value)) for word in call.keywords)
        values = tuple(ast.literal_eval(value) for value in call.args)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise InputError(
            f"the arguments of {text[:80]} must be literals, such as (32, name='x', wide=True): they are read, never "
            "evaluated"
        ) from error
    if any(name == "**" for name, _ in named):
        raise InputError(f"the arguments of {text[:80]} must be spelled out, without **")
    return values, named


def _module(where: str) -> ModuleType:
    """The module at `where`, run once a process. Its folder is where it looks for its neighbors, as Python does."""
    if not where.endswith(".py"):
        here = str(Path.cwd())
        if here not in sys.path:
            sys.path.insert(0, here)
        return _imported(where, lambda: importlib.import_module(where))
    path = Path(where)
    if not path.is_file():
        raise InputError(f"there is no file {where}: MODEL is FILE.py:Net, and FILE.py must be there")
    name = f"featherweight_own_{path.resolve().stem}_{abs(hash(str(path.resolve())))}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise InputError(f"{where} cannot be read as Python")
    module, loader = importlib.util.module_from_spec(spec), spec.loader
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    sys.modules[name] = module  # dataclasses and pickles look there

    def execute() -> ModuleType:
        loader.exec_module(module)
        return module

    try:
        return _imported(where, execute)
    except BaseException:
        del sys.modules[name]
        raise


def _imported(where: str, load: Callable[[], ModuleType]) -> ModuleType:
    try:
        return load()
    except ModuleNotFoundError as error:
        if error.name is not None and not where.endswith(".py") and where.split(".")[0] == error.name:
            raise InputError(
                f"Python finds no module {where}: run from the folder that holds it, or name FILE.py:Net"
            ) from error
        raise InputError(f"{where} fails to import: {_own_line(error, where)}") from error
    except (Exception, SystemExit) as error:
        raise InputError(f"{where} fails to import: {_own_line(error, where)}") from error


def _own_line(error: BaseException, where: str) -> str:
    """The error, with the last line of the user's own code that it came through."""
    reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}".rstrip(": ")
    if isinstance(error, SyntaxError):
        return f"{Path(error.filename or where).name}, line {error.lineno}: {(error.text or '').strip()}: {reason}"
    frames = traceback.extract_tb(error.__traceback__)
    here = Path(where).resolve() if where.endswith(".py") else None
    own = [frame for frame in frames if here is not None and Path(frame.filename).resolve() == here]
    own = own or [one for one in frames if "site-packages" not in one.filename and "<frozen" not in one.filename
                  and one.filename != __file__]  # fmt: skip
    if not own:
        return reason
    return f"{Path(own[-1].filename).name}, line {own[-1].lineno}: {own[-1].line}: {reason}"
