"""Executes those operations of a pickle that make plain values and arrays.

A pickle is a program for a machine with a stack and numbered variables (the memo). The machine of
the standard library calls any function that the program names. Here it leaves names, calls and
states to `pickle_values`, which allows a short list of them.
"""

import pickle
import struct
from collections import OrderedDict
from collections.abc import Callable
from io import BytesIO
from typing import Any, Final

from human_models.pickle_values import Budget, Builder, Name, checked_integer, find_name


class _Memo:
    """The variables, by the text of their numbers.

    With numbers themselves as keys, a file could choose those for which a dictionary is slow.
    """

    def __init__(self) -> None:
        self._values: dict[str, Any] = {}

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, number: int) -> object:
        return self._values[str(number)]

    def __setitem__(self, number: int, value: object) -> None:
        self._values[str(number)] = value


class _Unpickler(pickle._Unpickler):
    """The reader of the standard library that is written in Python, with safe operations.

    Operations that would call something, set a state, or take time or memory without limit are
    replaced. Those that refer to something outside of the pickle do not exist.
    """

    stack: list[Any]
    append: Callable[[Any], None]
    pop_mark: Callable[[], list[Any]]
    read: Callable[[int], bytes]
    readline: Callable[[], bytes]
    memo: _Memo

    def __init__(self, content: bytes, budget: Budget) -> None:
        super().__init__(BytesIO(content), encoding="latin-1")
        self.builder = Builder(budget)
        self.memo = _Memo()

    def find_class(self, module: str, name: str) -> Name:
        return find_name(module, name)

    def _instantiate(self, name: object, arguments: list[Any]) -> None:
        self.append(self.builder.call(name, tuple(arguments)))

    def call(self) -> None:
        arguments, name = self.stack.pop(), self.stack.pop()
        self.append(self.builder.call(name, arguments))

    def call_with_keywords(self) -> None:
        keywords = self.stack.pop()
        if type(keywords) is not dict or keywords:
            raise ValueError("an object of an unknown layout")
        self.call()

    def build(self) -> None:
        state = self.stack.pop()
        self.builder.set_state(self.stack[-1], state)

    def push_bytearray(self) -> None:
        (length,) = struct.unpack("<Q", self.read(8))
        self.append(bytearray(self.read(length)))

    def append_item(self) -> None:
        self._extend([self.stack.pop()])

    def append_items(self) -> None:
        self._extend(self.pop_mark())

    def _extend(self, items: list[Any]) -> None:
        # Not bytearrays: arrays use their memory, which moves when they grow.
        if type(self.stack[-1]) is not list:
            raise ValueError("items for something that is not a list")
        self.stack[-1].extend(items)

    def put(self) -> None:
        number = int(self.readline()[:-1])
        if not 0 <= number < 1 << 32:
            raise ValueError("an impossible number in the memo")
        self.memo[number] = self.stack[-1]

    def push_frozenset(self) -> None:
        items = self.pop_mark()
        self.builder.check_keys(items, 0)
        self.append(frozenset(items))

    def push_dict(self) -> None:
        items = self.pop_mark()
        self.append({})
        self._set_items(items)

    def set_item(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set_items([key, value])

    def set_items(self) -> None:
        self._set_items(self.pop_mark())

    def _set_items(self, items: list[Any]) -> None:
        target, keys = self.stack[-1], items[::2]
        if type(target) is not dict and type(target) is not OrderedDict:
            raise ValueError("keys for something that is not a dictionary")
        self.builder.check_keys(keys, len(target))
        target.update(zip(keys, items[1::2], strict=True))

    def add_items(self) -> None:
        items = self.pop_mark()
        target = self.stack[-1]
        if type(target) is not set:
            raise ValueError("items for something that is not a set")
        self.builder.check_keys(items, len(target))
        target.update(items)

    def refuse(self) -> None:
        raise ValueError("it has an operation that no pickle of values needs")


def _checked(load: Callable[[Any], None]) -> Callable[[Any], None]:
    """An operation that pushes an integer, with a limit for its digits."""

    def load_checked(machine: _Unpickler) -> None:
        load(machine)
        checked_integer(machine.stack[-1])

    return load_checked


_KEPT: Final = (
    *(pickle.PROTO, pickle.FRAME, pickle.STOP),
    *(pickle.MARK, pickle.POP, pickle.POP_MARK, pickle.DUP),
    *(pickle.NONE, pickle.NEWTRUE, pickle.NEWFALSE, pickle.FLOAT, pickle.BINFLOAT),
    *(pickle.BININT, pickle.BININT1, pickle.BININT2),
    *(pickle.STRING, pickle.BINSTRING, pickle.SHORT_BINSTRING),
    *(pickle.UNICODE, pickle.BINUNICODE, pickle.SHORT_BINUNICODE, pickle.BINUNICODE8),
    *(pickle.BINBYTES, pickle.SHORT_BINBYTES, pickle.BINBYTES8),
    *(pickle.LIST, pickle.EMPTY_LIST, pickle.EMPTY_DICT, pickle.EMPTY_SET),
    *(pickle.TUPLE, pickle.EMPTY_TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3),
    *(pickle.GET, pickle.BINGET, pickle.LONG_BINGET),
    *(pickle.BINPUT, pickle.LONG_BINPUT, pickle.MEMOIZE),
    *(pickle.GLOBAL, pickle.STACK_GLOBAL, pickle.INST, pickle.OBJ),  # by find_class, _instantiate
)
_REPLACED: Final[dict[bytes, Callable[[Any], None]]] = {
    pickle.REDUCE: _Unpickler.call,
    pickle.NEWOBJ: _Unpickler.call,
    pickle.NEWOBJ_EX: _Unpickler.call_with_keywords,
    pickle.BUILD: _Unpickler.build,
    pickle.APPEND: _Unpickler.append_item,
    pickle.APPENDS: _Unpickler.append_items,
    pickle.PUT: _Unpickler.put,
    pickle.BYTEARRAY8: _Unpickler.push_bytearray,
    pickle.FROZENSET: _Unpickler.push_frozenset,
    pickle.DICT: _Unpickler.push_dict,
    pickle.SETITEM: _Unpickler.set_item,
    pickle.SETITEMS: _Unpickler.set_items,
    pickle.ADDITEMS: _Unpickler.add_items,
    **{
        code: _checked(pickle._Unpickler.dispatch[code[0]])
        for code in (pickle.INT, pickle.LONG, pickle.LONG1, pickle.LONG4)
    },
}
_REFUSED: Final[dict[int, Callable[[Any], None]]] = dict.fromkeys(range(256), _Unpickler.refuse)
_Unpickler.dispatch = {
    **_REFUSED,
    **{code[0]: pickle._Unpickler.dispatch[code[0]] for code in _KEPT},
    **{code[0]: operation for code, operation in _REPLACED.items()},
}


def unpickle(content: bytes, budget: Budget) -> object:
    """The content of a pickle; unknown objects are placeholders.

    Raises:
        UnknownNameError: it names something that is not on the list.
        UnpicklingError, ValueError, TypeError, LookupError, EOFError, OverflowError: it is damaged
            or malicious.
    """
    return _Unpickler(content, budget).load()
