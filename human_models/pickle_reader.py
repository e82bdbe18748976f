"""Executes those operations of a pickle that make plain values and arrays.

A pickle is a program for a machine with a stack and numbered variables (the memo). Python's own
machine calls any function that the program names; this one implements the operations, and leaves
names to `pickle_values`, which allows a short list of them. Arguments of operations are parsed by
`pickletools` of the standard library, which returns only numbers, texts and bytes.
"""

import codecs
import pickletools
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from io import BufferedReader, BytesIO
from typing import Any, Final

import numpy as np

from human_models.pickle_values import Budget, Builder, checked_integer, find_name

Source = BufferedReader | zipfile.ZipExtFile
"""A file, or a member of an archive."""

_LAST_PROTOCOL: Final = 5
_STOP: Final = b"."


def read_pickle(file: Source, size: int, budget: Budget) -> object:
    """The content of a pickle of at most `size` bytes; unknown objects are placeholders.

    Raises:
        UnknownNameError: it names something that is not on the list of `pickle_values`.
        ValueError, TypeError, LookupError, EOFError, OverflowError: it is damaged or malicious.
    """
    content = BytesIO(file.read(size))
    machine = _Machine(Builder(budget))
    while (code := content.read(1)) != _STOP:
        if not code:
            raise EOFError("it ends early")
        if code not in _OPERATIONS:
            raise ValueError(f"0x{code.hex()} is not an operation of a pickle that contains values")
        read_argument, do = _OPERATIONS[code]
        do(machine, read_argument(content))
    return machine.stack.pop()


class _Machine:
    """The stack, the memo, and the operations."""

    def __init__(self, builder: Builder) -> None:
        self.builder = builder
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        """The parts of the stack below the marks, one list per mark."""
        self.memo: dict[int, Any] = {}
        self.memo_of_dtypes: dict[int, int] = {}
        """Memo numbers of dtypes, by identity: dtypes are replaced when their state is set."""

    def push(self, value: object) -> None:
        self.stack.append(value)

    def push_integer(self, value: int) -> None:
        self.stack.append(checked_integer(value))

    def check_protocol(self, number: int) -> None:
        if number > _LAST_PROTOCOL:
            raise ValueError("a pickle of an unknown protocol")

    def skip(self, _: object) -> None:
        """Ignore frames, which only say how much to read ahead."""

    def mark(self, _: None) -> None:
        self.below.append(self.stack)
        self.stack = []

    def pop_to_mark(self) -> list[Any]:
        """Remove and return everything above the last mark."""
        items, self.stack = self.stack, self.below.pop()
        return items

    def pop(self, _: None) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self.pop_to_mark()

    def duplicate(self, _: None) -> None:
        self.stack.append(self.stack[-1])

    # ---- the memo

    def get(self, number: int) -> None:
        self.stack.append(self.memo[number])

    def put(self, number: int) -> None:
        self.memo[number] = value = self.stack[-1]
        if isinstance(value, np.dtype):
            self.memo_of_dtypes[id(value)] = number

    def memoize(self, _: None) -> None:
        self.put(len(self.memo))

    # ---- containers

    def tuple_of(self, count: int) -> None:
        if len(self.stack) < count:
            raise ValueError("a tuple of missing items")
        self.stack[-count:] = [tuple(self.stack[-count:])]

    def push_tuple(self, items: list[Any]) -> None:
        self.stack.append(tuple(items))

    def push_dict(self, items: list[Any]) -> None:
        self.stack.append({})
        self.set_items(items)

    def push_frozenset(self, items: list[Any]) -> None:
        self.builder.check_keys(items, 0)
        self.stack.append(frozenset(items))

    def append(self, _: None) -> None:
        self.extend([self.stack.pop()])

    def extend(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not list:
            raise ValueError("items for something that is not a list")
        target.extend(items)

    def set_item(self, _: None) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.set_items([key, value])

    def set_items(self, items: list[Any]) -> None:
        target, keys = self.stack[-1], items[::2]
        if type(target) is not dict and type(target) is not OrderedDict:
            raise ValueError("keys for something that is not a dictionary")
        self.builder.check_keys(keys, len(target))
        target.update(zip(keys, items[1::2], strict=True))

    def add_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not set:
            raise ValueError("items for something that is not a set")
        self.builder.check_keys(items, len(target))
        target.update(items)

    # ---- names, calls and states; functions are called and objects are made in the same way here

    def name(self, names: tuple[str, str]) -> None:
        self.stack.append(find_name(*names))

    def name_from_stack(self, _: None) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.stack.append(find_name(module, name))

    def call(self, _: None) -> None:
        arguments, name = self.stack.pop(), self.stack.pop()
        self.stack.append(self.builder.call(name, arguments))

    def call_with_keywords(self, _: None) -> None:
        if self.stack.pop() != {}:
            raise ValueError("an object of an unknown layout")
        self.call(None)

    def call_first(self, items: list[Any]) -> None:
        name, *arguments = items
        self.stack.append(self.builder.call(name, tuple(arguments)))

    def call_name(self, names: tuple[str, str]) -> None:
        arguments = tuple(self.pop_to_mark())
        self.stack.append(self.builder.call(find_name(*names), arguments))

    def build(self, _: None) -> None:
        state, value = self.stack.pop(), self.stack.pop()
        built = self.builder.with_state(value, state)
        self.stack.append(built)
        number = self.memo_of_dtypes.pop(id(value), None)
        if number is not None:
            self.memo[number] = built


def _line(content: BytesIO) -> bytes:
    line = content.readline()
    if not line.endswith(b"\n"):
        raise EOFError("it ends early")
    return line[:-1]


def _two_lines(content: BytesIO) -> tuple[str, str]:
    return _line(content).decode(), _line(content).decode()


def _quoted(content: BytesIO) -> str:
    """A Python 2 string in protocol 0."""
    line = _line(content)
    if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in (b"'", b'"'):
        raise ValueError("a string without quotes")
    text: bytes = codecs.escape_decode(line[1:-1])[0]
    return text.decode("latin-1")


_CONSTANTS: Final[dict[str, Callable[[BytesIO], object]]] = {
    "NONE": lambda _: None,
    "NEWTRUE": lambda _: True,
    "NEWFALSE": lambda _: False,
    "EMPTY_LIST": lambda _: [],
    "EMPTY_TUPLE": lambda _: (),
    "EMPTY_DICT": lambda _: {},
    "EMPTY_SET": lambda _: set(),
}
_READERS: Final[dict[str, Callable[[BytesIO], object]]] = {
    **_CONSTANTS,
    "STRING": _quoted,
    **dict.fromkeys(("GLOBAL", "INST"), _two_lines),
    "TUPLE1": lambda _: 1,
    "TUPLE2": lambda _: 2,
    "TUPLE3": lambda _: 3,
}
"""Readers of arguments that `pickletools` does not read, or reads as ASCII."""
_ACTIONS: Final[dict[str, Callable[[_Machine, Any], None]]] = {
    **dict.fromkeys(_CONSTANTS, _Machine.push),
    **dict.fromkeys(("FLOAT", "BINFLOAT", "STRING", "BINSTRING", "SHORT_BINSTRING"), _Machine.push),
    **dict.fromkeys(("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"), _Machine.push),
    **dict.fromkeys(("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"), _Machine.push),
    **dict.fromkeys(("INT", "BININT", "BININT1", "BININT2"), _Machine.push_integer),
    **dict.fromkeys(("LONG", "LONG1", "LONG4"), _Machine.push_integer),
    "PROTO": _Machine.check_protocol,
    "FRAME": _Machine.skip,
    "MARK": _Machine.mark,
    "POP": _Machine.pop,
    "DUP": _Machine.duplicate,
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _Machine.get),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), _Machine.put),
    "MEMOIZE": _Machine.memoize,
    **dict.fromkeys(("TUPLE1", "TUPLE2", "TUPLE3"), _Machine.tuple_of),
    "APPEND": _Machine.append,
    "SETITEM": _Machine.set_item,
    "GLOBAL": _Machine.name,
    "STACK_GLOBAL": _Machine.name_from_stack,
    **dict.fromkeys(("REDUCE", "NEWOBJ"), _Machine.call),
    "NEWOBJ_EX": _Machine.call_with_keywords,
    "INST": _Machine.call_name,
    "BUILD": _Machine.build,
}
_ACTIONS_TO_MARK: Final[dict[str, Callable[[_Machine, list[Any]], None]]] = {
    "POP_MARK": lambda *_: None,
    "TUPLE": _Machine.push_tuple,
    "LIST": _Machine.push,
    "DICT": _Machine.push_dict,
    "FROZENSET": _Machine.push_frozenset,
    "APPENDS": _Machine.extend,
    "SETITEMS": _Machine.set_items,
    "ADDITEMS": _Machine.add_items,
    "OBJ": _Machine.call_first,
}
"""Operations that take everything above the last mark."""


def _to_mark(action: Callable[[_Machine, list[Any]], None]) -> Callable[[_Machine, Any], None]:
    return lambda machine, _: action(machine, machine.pop_to_mark())


def _nothing(_: BytesIO) -> None:
    """The reader of operations without an argument."""


_OPERATIONS: Final = {
    operation.code.encode("latin-1"): (
        _READERS.get(operation.name) or (operation.arg.reader if operation.arg else _nothing),
        _ACTIONS.get(operation.name) or _to_mark(_ACTIONS_TO_MARK[operation.name]),
    )
    for operation in pickletools.opcodes
    if operation.name in _ACTIONS.keys() | _ACTIONS_TO_MARK.keys()
}
