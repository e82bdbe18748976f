"""Reads config files as data: a Python file with one literal dict `config`, never executed.

    base = "config_smplest_x_h.py"      # optional: the file to start from
    config = {"data": {...}, "train": {...}, "inference": {...}, "test": {...}, "model": {...}}

`base` is a path from the folder of this file, an absolute path, or a name in configs/.
Values may be numbers, strings, True, False, None, tuples, lists, dicts and arithmetic on numbers.
"""

import ast
import logging
import operator
import pprint
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from configs.schema import Config, validate
from utils.errors import UserError
from utils.files import atomic_path, is_below, read_input

log = logging.getLogger(__name__)

_ARITHMETIC: dict[type, Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
}
_FOLDER: Final = Path(__file__).parent
_LARGEST_FILE: Final = 1 << 20
"""Bytes."""
_LARGEST_NUMBER: Final = 10**18
_DEEPEST_KEY: Final = 10
"""Most dots in the key of an override."""
_LONGEST_CHAIN: Final = 20
"""Most files that name each other as `base`."""


class _NotDataError(ValueError):
    def __init__(self, node: ast.AST) -> None:
        self.line = getattr(node, "lineno", 1)
        super().__init__(ast.unparse(node).splitlines()[0][:60])


def _number(node: ast.expr) -> int | float:
    value = _evaluate(node)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _NotDataError(node)
    return value


def _bounded(number: int | float, node: ast.expr) -> int | float:
    if not -_LARGEST_NUMBER <= number <= _LARGEST_NUMBER:
        raise _NotDataError(node)
    return number


def _evaluate(node: ast.expr) -> Any:
    match node:
        case ast.Constant(value=str() | bool() | None):
            return node.value
        case ast.Constant(value=int() | float() as number):
            return _bounded(number, node)
        case ast.Dict(keys=keys, values=values) if None not in keys:
            return {_evaluate(k): _evaluate(v) for k, v in zip(keys, values, strict=True) if k}
        case ast.List(elts=items):
            return [_evaluate(item) for item in items]
        case ast.Tuple(elts=items):
            return tuple(_evaluate(item) for item in items)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _ARITHMETIC:
            return _bounded(_ARITHMETIC[type(op)](_number(left), _number(right)), node)
        case ast.UnaryOp(op=op, operand=operand) if type(op) in _ARITHMETIC:
            return _ARITHMETIC[type(op)](_number(operand))
    raise _NotDataError(node)


def _assignments(path: Path) -> dict[str, Any]:
    content = read_input(path, _LARGEST_FILE, "config file")
    try:
        tree = ast.parse(content.decode("utf-8"), filename=str(path))
    except (RecursionError, MemoryError):
        raise UserError(f"{path}: not readable as a config file (nested too deeply)") from None
    except SyntaxError as error:
        raise UserError(f"{path}:{error.lineno or 1}: not valid Python ({error.msg})") from None
    except ValueError as error:  # not UTF-8, or a NUL character
        raise UserError(f"{path}: not readable as a config file ({error})") from None
    found: dict[str, Any] = {}
    for statement in tree.body:
        match statement:
            case ast.Expr(value=ast.Constant(value=str())):
                continue  # a docstring
            case ast.Assign(targets=[ast.Name(id="config" | "base" as name)], value=value):
                try:
                    found[name] = _evaluate(value)
                except RecursionError:
                    raise UserError(f"{path}:{statement.lineno}: nested too deeply") from None
                except (_NotDataError, TypeError, ArithmeticError) as error:
                    line = getattr(error, "line", statement.lineno)
                    raise UserError(
                        f"{path}:{line}: `{error}` is not plain data; configs are not executed"
                    ) from None
            case _:
                raise UserError(
                    f"{path}:{statement.lineno}: a config file contains one dict `config` "
                    "(and optionally `base`), nothing else"
                )
    if not isinstance(found.get("config"), dict):
        raise UserError(f"{path}: there is no dict named `config` in it")
    return found


def _merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            value = _merge(old, value)
        merged[key] = value
    return merged


def _read_dict(path: Path, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    if path.resolve() in seen:
        raise UserError(f"{path}: its `base` files form a cycle")
    if len(seen) >= _LONGEST_CHAIN:
        raise UserError(f"{path}: more than {_LONGEST_CHAIN} files name each other as `base`")
    found = _assignments(path)
    config, base = found["config"], found.get("base")
    if base is None:
        return config
    if not isinstance(base, str):
        raise UserError(f"{path}: `base` must be a file name in quotes")
    return _merge(_read_dict(_find_base(path, base), (*seen, path.resolve())), config)


def _find_base(path: Path, base: str) -> Path:
    """Find the file that a config names as its `base`."""
    places = [path.parent / base]  # an absolute path stays as it is
    if is_below(base):
        places.append(_FOLDER / base)
    with suppress(OSError):  # a name that is too long
        for place in places:
            if base.isprintable() and place.exists():
                return place
    raise UserError(
        f"{path}: its `base` {base!r:.200} is not a file; give a path from the folder of this "
        "config, an absolute path, or a name in configs/"
    )


def parse_override(text: str) -> tuple[list[str], Any]:
    """ "train.lr=1e-5" -> (["train", "lr"], 1e-5); values that are not literals are strings."""
    key, separator, value_text = text.partition("=")
    if not separator or not all(key.split(".")):
        raise UserError(f"{text}: write it as section.key=value, e.g. train.lr=1e-5", setting="set")
    if key.count(".") > _DEEPEST_KEY:
        raise UserError(f"{key[:80]}...: there is no such key", setting="set")
    try:
        value = _evaluate(ast.parse(value_text.strip(), mode="eval").body)
    except (SyntaxError, ValueError, TypeError, ArithmeticError):
        value = value_text
    except (RecursionError, MemoryError):
        raise UserError(f"{key}=...: nested too deeply", setting="set") from None
    return key.split("."), value


def find_config(name: str | Path) -> Path:
    """The config file with this path, or with this name in configs/.

    Raises:
        UserError: there is no such file.
    """
    path = Path(name)
    if path.exists() and not path.is_dir():
        return path
    if is_below(str(path)) and (_FOLDER / path).is_file():
        return _FOLDER / path
    known = ", ".join(sorted(file.name for file in _FOLDER.glob("config_*.py")))
    shown = str(name) or "''"
    raise UserError(f"{shown}: no such config file; give a path, or a name in configs/: {known}")


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Find, read, merge with its `base`, apply `overrides` ("section.key=value") and validate.

    Raises:
        UserError: the file is missing or not plain data, or a key or value is wrong.
    """
    path = find_config(path)
    values = _read_dict(path)
    for override in overrides:
        keys, value = parse_override(override)
        for key in reversed(keys):
            value = {key: value}
        values = _merge(values, value)
    if _holds_nul(values):
        raise UserError(f"{path}: a text in it or in --set contains a NUL character; remove it")
    return validate(values, source=f"{path} with overrides" if overrides else str(path))


def _holds_nul(value: object) -> bool:
    if isinstance(value, dict):
        return any(map(_holds_nul, (*value.keys(), *value.values())))
    if isinstance(value, list | tuple):
        return any(map(_holds_nul, value))
    return isinstance(value, str) and "\0" in value


def save_config(config: Config, path: str | Path) -> None:
    """Write the resolved config as a file from which `load_config` reads an equal config."""
    text = pprint.pformat(config.model_dump(), width=96, sort_dicts=False)
    with atomic_path(Path(path)) as partial:
        partial.write_text(f"config = {text}\n", encoding="utf-8")
