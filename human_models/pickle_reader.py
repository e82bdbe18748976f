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


class _Unpickler(pickle._Unpickler):
    """The reader of the standard library that is written in Python, with safe operations.

    Those that would call something, set a state, or take time or memory without limit are replaced,
    and those that refer to something outside of the pickle are refused. Of all values on the stack,
    only lists and bytearrays have the methods `append` and `extend` that the others call.
    """

    stack: list[Any]
    append: Callable[[Any], None]
    pop_mark: Callable[[], list[Any]]
    read: Callable[[int], bytes]

    def __init__(self, content: bytes, budget: Budget) -> None:
        super().__init__(BytesIO(content), encoding="latin-1")
        self.builder = Builder(budget)

    def find_class(self, module: str, name: str) -> Name:
        return find_name(module, name)

    def _instantiate(self, name: object, arguments: list[Any]) -> None:
        self.append(self.builder.call(name, tuple(arguments)))

    def call(self) -> None:
        arguments, name = self.stack.pop(), self.stack.pop()
        self.append(self.builder.call(name, arguments))

    def call_with_keywords(self) -> None:
        if self.stack.pop() != {}:
            raise ValueError("an object of an unknown layout")
        self.call()

    def build(self) -> None:
        state = self.stack.pop()
        self.builder.set_state(self.stack[-1], state)

    def push_bytearray(self) -> None:
        (length,) = struct.unpack("<Q", self.read(8))
        self.append(bytearray(self.read(length)))

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
        raise ValueError("it refers to something outside of it")


def _checked(load: Callable[[Any], None]) -> Callable[[Any], None]:
    """An operation that pushes an integer, with a limit for its digits."""

    def load_checked(machine: _Unpickler) -> None:
        load(machine)
        checked_integer(machine.stack[-1])

    return load_checked


_OUTSIDE: Final = (
    *(pickle.PERSID, pickle.BINPERSID, pickle.EXT1, pickle.EXT2, pickle.EXT4),
    *(pickle.NEXT_BUFFER, pickle.READONLY_BUFFER),
)
_REPLACED: Final[dict[bytes, Callable[[Any], None]]] = {
    pickle.REDUCE: _Unpickler.call,
    pickle.NEWOBJ: _Unpickler.call,
    pickle.NEWOBJ_EX: _Unpickler.call_with_keywords,
    pickle.BUILD: _Unpickler.build,
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
    **dict.fromkeys(_OUTSIDE, _Unpickler.refuse),
}
_Unpickler.dispatch = {
    **pickle._Unpickler.dispatch,
    **{code[0]: operation for code, operation in _REPLACED.items()},
}


def unpickle(content: bytes, budget: Budget) -> object:
    """The content of a pickle; unknown objects are placeholders.

    Raises:
        UnknownNameError: it names something that is not on the list.
        UnpicklingError, ValueError, TypeError, AttributeError, LookupError, EOFError,
            OverflowError: it is damaged or malicious.
    """
    return _Unpickler(content, budget).load()
