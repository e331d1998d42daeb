"""What may stand in a .pt2: its reader looks up functions by names that a file holds, and evaluates its expressions.

Everything in a file is therefore checked before PyTorch sees it, and PyTorch is given a new archive of what was checked
alone. A name of an operator is one of aten's; any other text is a name, a word of a closed kind, or an expression of
this grammar, in which nothing but integers, the symbols of dynamic sizes and PyTorch's own functions of these occurs:

    comparison  sum {("==" | "!=" | "<" | "<=" | ">" | ">=") sum}
    sum         product {("+" | "-") product}
    product     power {("*" | "/" | "//" | "%") power}
    power       atom ["**" exponent]
    exponent    ["-"] integer, as it is or within "Integer(" ")"
    atom        ["-"] (integer | symbol | "True" | "False" | "(" comparison ")" | call)
    call        "Symbol(" quoted symbol {", " word "=" ("True" | "False")} ")"
                | power function "(" comparison ", " exponent ")"
                | function "(" [comparison {", " comparison}] ")"

Numbers, exponents, symbols and the length of an expression have limits: PyTorch computes what it reads.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from solution.contracts import InputError

_DAMAGE = (zipfile.BadZipFile, NotImplementedError, EOFError, ValueError, KeyError, TypeError, AttributeError,
           RecursionError)  # fmt: skip
"""What a damaged archive makes of its reader."""
_MODEL = "models/model.json"
_SAMPLES = "data/sample_inputs/model.pt"
_CONFIGS = ("data/weights/model_weights_config.json", "data/constants/model_constants_config.json")
_PLAIN = re.compile(
    r"data/weights/weight_\d+|data/constants/tensor_\d+|extra/featherweight\.json|archive_format|archive_version"
    r"|\.data/version|\.data/serialization_id|byteorder|version"
)
"""Members that hold numbers, or text that nobody evaluates."""

_MOST_TOKENS, _MOST_DEPTH, _MOST_DIGITS, _MOST_SYMBOLS = 1000, 50, 20, 8
_MOST_EXPONENT, _MOST_POWERS = 8, 4
"""A power of a power of a power has a number with as many digits as there are atoms."""
_TOKEN = re.compile(r"\s*(?:(\d+)|([A-Za-z_]\w*)|('[a-z]+\d+')|(\*\*|//|==|!=|<=|>=|[-+*/%<>(),=]))", re.ASCII)
_SYMBOL = re.compile(r"[a-z]{1,8}\d+", re.ASCII)
_CONSTANTS = ("True", "False")
_ASSUMPTIONS = ("integer", "positive", "nonnegative", "negative", "nonpositive", "nonzero", "zero", "real", "finite")
_FUNCTIONS = (
    "Integer", "Rational", "Float", "Add", "Mul", "Max", "Min", "Mod", "Abs", "Not", "And", "Or",
    "Equality", "Unequality", "LessThan", "GreaterThan", "StrictLessThan", "StrictGreaterThan",
    "Eq", "Ne", "Le", "Ge", "Lt", "Gt", "Identity", "FloorDiv", "ModularIndexing", "Where", "PythonMod", "CleanDiv",
    "CeilDiv", "CeilToInt", "FloorToInt", "TruncToInt", "IntTrueDiv", "FloatTrueDiv",
    "RShift", "ToFloat",
)  # fmt: skip
_POWERS = ("Pow", "PowByNatural", "LShift")
_OPERATORS = ("add", "sub", "mul", "truediv", "floordiv", "mod", "neg", "pow", "getitem", "eq", "ne", "lt", "le", "gt",
              "ge", "and_", "or_", "not_")  # fmt: skip
"""Functions on sizes."""
_QUANTIZED = ("quantize_per_tensor", "dequantize_per_tensor", "quantize_per_channel", "dequantize_per_channel")
_EMPTY = ("metadata", "guards_code", "custom_obj_values", "treespec_namedtuple_fields")
"""Fields that our writer leaves empty, and whose content would be compiled, imported or unpickled."""
_REFUSED = ("as_custom_obj", "as_operator", "as_graph", "custom_obj")
_CONTAINERS = (None, "builtins.tuple", "builtins.list", "builtins.dict")
_IDENTIFIER = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_NAME = re.compile(r"[\w.\-]*", re.ASCII)
_WORDS = {
    "name": _IDENTIFIER,
    "as_name": _IDENTIFIER,
    "forward_arg_names": _IDENTIFIER,
    "as_string": re.compile(r"[\w ,.>\-]*", re.ASCII),
    "torch_version": re.compile(r"[\w.+]*", re.ASCII),
}
"""{field: what its text may be}; that of all others is `_NAME`."""


def checked(data: bytes, path: Path) -> bytes:
    """The archive again, of members that were checked one by one. `InputError` for anything else than these.

    Data that two readers of archives would understand differently reach PyTorch as this one understood them.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return _written_anew(_members(archive))
    except InputError as error:
        raise InputError(f"{path} {error}") from error
    except _DAMAGE as error:
        raise InputError(f"{path} is not a pt2 file, or it is damaged ({error})") from error


def _members(archive: zipfile.ZipFile) -> Iterator[tuple[str, bytes]]:
    names = archive.namelist()
    # PyTorch takes other archives for an older format, which is pickled throughout.
    if not any(name.endswith(f"/{_MODEL}") for name in names) or any("/" not in name for name in names):
        raise InputError("holds no model: it is not a pt2 file")
    if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
        raise InputError("is compressed, which a pt2 file never is")
    if len(set(names)) != len(names) or archive.testzip() is not None:
        raise InputError("is damaged; copy or export it again")
    if len({name.partition("/")[0] for name in names}) != 1:
        raise InputError("holds more than one archive: it is not a pt2 file")
    for info in archive.infolist():
        yield info.filename, _member(info.filename.partition("/")[2], archive.read(info))


def _member(name: str, content: bytes) -> bytes:
    """The content of a member, as it was checked."""
    if _PLAIN.fullmatch(name) or (name == _SAMPLES and not content):
        return content
    if name != _MODEL and name not in _CONFIGS:
        raise InputError(f"holds a pickle or code ({name[:80]}): it is never loaded")
    fields = json.loads(content)
    if not isinstance(fields, dict):
        raise ValueError(f"{name} is no table")
    if name in _CONFIGS and any(entry["use_pickle"] for entry in fields["config"].values()):
        raise InputError(f"holds a pickle ({name}): it could run code and is never loaded")
    _check(fields, "")
    return json.dumps(fields).encode()


def _written_anew(members: Iterator[tuple[str, bytes]]) -> bytes:
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return whole.getvalue()


def _check(value: Any, field: str) -> None:
    """`InputError` unless `value`, which stands in the field of this name, is what our writer would have put there."""
    if isinstance(value, dict):
        for name, inner in value.items():
            if name in _REFUSED or (name in _EMPTY and inner):
                raise _refusal(f"the field {name!r} is filled")
            if not _NAME.fullmatch(name):
                raise _refusal(f"a field is called {name[:80]!r}")
            _check(inner, name)
    elif isinstance(value, list):
        for inner in value:
            _check(inner, field)
    elif isinstance(value, str):
        _check_text(value, field)


def _check_text(text: str, field: str) -> None:
    if field == "expr_str":
        check_expression(text)
    elif field in ("in_spec", "out_spec"):
        _, spec = json.loads(text)
        _check_containers(spec)
    elif field == "target":
        _check_operator(text)
    elif not _WORDS.get(field, _NAME).fullmatch(text) and text not in ("Infinity", "-Infinity", "NaN"):
        raise _refusal(f"{field!r} is {text[:80]!r}")


def _check_containers(spec: dict[str, Any]) -> None:
    """How inputs and outputs lie in tuples and dictionaries: other containers would be imported by their names."""
    if set(spec) != {"type", "context", "children_spec"} or spec["type"] not in _CONTAINERS:
        raise _refusal(f"an input or output is a {str(spec.get('type'))[:80]!r}")
    context = json.loads(spec["context"]) if spec["context"] is not None else None
    if context is not None and not all(isinstance(key, str) and _IDENTIFIER.fullmatch(key) for key in context):
        raise _refusal(f"keys of an input are {str(context)[:80]}")
    for inner in spec["children_spec"]:
        _check_containers(inner)


def _check_operator(target: str) -> None:
    """PyTorch would look up any dotted name, ``torch.os.system`` too."""
    place, _, name = target.rpartition(".")
    if place == "_operator" and name in _OPERATORS:
        return
    place, _, packet = place.rpartition(".")
    fine = all(_IDENTIFIER.fullmatch(word) and not word.startswith("__") for word in (packet, name))
    if fine and place == "torch.ops.quantized_decomposed" and packet in _QUANTIZED:
        return
    if fine and place == "torch.ops.aten":
        found = getattr(getattr(torch.ops.aten, packet, None), name, None)
        arguments = found._schema.arguments if isinstance(found, torch._ops.OpOverload) else None
        if arguments is not None and all(argument.name != "filename" for argument in arguments):
            return
    raise _refusal(f"a node calls {target[:80]!r}")


def _refusal(what: str) -> InputError:
    return InputError(f"holds what no export of this project writes ({what}): it could run code and is never loaded")


def check_expression(text: str) -> None:
    """`InputError` unless `text` is a comparison of the grammar above."""
    try:
        tokens: list[str] = []
        position = 0
        while position < len(text.rstrip()):
            found = _TOKEN.match(text, position)
            if found is None or len(tokens) == _MOST_TOKENS or len(found[1] or "") > _MOST_DIGITS:
                raise SyntaxError
            tokens.append(found.group().strip())
            position = found.end()
        if len({token for token in tokens if _SYMBOL.fullmatch(token.strip("'"))}) > _MOST_SYMBOLS:
            raise SyntaxError
        parser = _Expression([*tokens, ""])
        parser.comparison(0)
        parser.take("")
    except SyntaxError:
        raise _refusal(f"the expression {text[:80]!r}") from None


class _Expression:
    """A recursive descent over tokens, of which the last is empty; a `SyntaxError` where they leave the grammar."""

    def __init__(self, tokens: list[str]) -> None:
        self.tokens = tokens
        self.place = self.powers = 0

    def take(self, *wanted: str) -> str | None:
        """The next token, which must be one of `wanted`."""
        token = self.tokens[self.place]
        if token not in wanted:
            raise SyntaxError
        self.place += 1
        return token

    def next_is(self, *wanted: str) -> bool:
        """Whether the next token is one of `wanted`, which is then taken."""
        found = self.tokens[self.place] in wanted
        self.place += found
        return found

    def comparison(self, depth: int) -> None:
        """Operators of all ranks are read alike: only whether the text is well formed counts."""
        if depth > _MOST_DEPTH:
            raise SyntaxError
        self.operand(depth)
        while True:
            if self.next_is("**"):
                self.exponent()
            elif self.next_is("==", "!=", "<", "<=", ">", ">=", "+", "-", "*", "/", "//", "%"):
                self.operand(depth)
            else:
                return

    def operand(self, depth: int) -> None:
        """An atom of the grammar."""
        self.next_is("-")
        token = self.tokens[self.place]
        self.place += 1
        if token == "(":
            self.comparison(depth + 1)
            self.take(")")
        elif token == "Symbol":
            self.symbol()
        elif token in _POWERS:
            self.take("(")
            self.comparison(depth + 1)
            self.take(",")
            self.exponent()
            self.take(")")
        elif token in _FUNCTIONS:
            self.take("(")
            if not self.next_is(")"):
                self.comparison(depth + 1)
                while self.next_is(","):
                    self.comparison(depth + 1)
                self.take(")")
        elif not (token.isdecimal() or token in _CONSTANTS or _SYMBOL.fullmatch(token)):
            raise SyntaxError

    def exponent(self) -> None:
        """A small whole number, of few such: numbers would outgrow the memory."""
        within = self.next_is("Integer") and self.take("(")
        self.next_is("-")
        token = self.tokens[self.place]
        self.place += 1
        self.powers += 1
        if not token.isdecimal() or int(token) > _MOST_EXPONENT or self.powers > _MOST_POWERS:
            raise SyntaxError
        if within:
            self.take(")")

    def symbol(self) -> None:
        """What follows the word Symbol."""
        self.take("(")
        token = self.tokens[self.place]
        self.place += 1
        if not token.startswith("'"):
            raise SyntaxError
        while self.next_is(","):
            self.take(*_ASSUMPTIONS)
            self.take("=")
            self.take(*_CONSTANTS)
        self.take(")")
