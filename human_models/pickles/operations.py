"""The operations of pickles by their codes, and what the rarer of them do."""

import codecs
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final

import numpy as np

from human_models.pickles.limits import MOST_BITS, Budget, checked_integer
from human_models.pickles.stream import Stream
from human_models.pickles.values import Builder, find_name

MARK, STOP, POP, POP_MARK, DUP = b"(.012"
FLOAT, INT, BININT, BININT1, LONG, BININT2, NONE = b"FIJKLMN"
REDUCE, STRING, BINSTRING, SHORT_BINSTRING = b"RSTU"
UNICODE, BINUNICODE, APPEND, BUILD, GLOBAL = b"VXabc"
DICT, EMPTY_DICT, APPENDS, GET, BINGET, INST = b"d}eghi"
LONG_BINGET, LIST, EMPTY_LIST, OBJ, PUT, BINPUT = b"jl]opq"
LONG_BINPUT, SETITEM, TUPLE, EMPTY_TUPLE, SETITEMS, BINFLOAT = b"rst)uG"
PROTO, NEWOBJ, TUPLE1, TUPLE2, TUPLE3 = b"\x80\x81\x85\x86\x87"
NEWTRUE, NEWFALSE, LONG1, LONG4, BINBYTES, SHORT_BINBYTES = b"\x88\x89\x8a\x8bBC"
SHORT_BINUNICODE, BINUNICODE8, BINBYTES8 = b"\x8c\x8d\x8e"
EMPTY_SET, ADDITEMS, FROZENSET, NEWOBJ_EX = b"\x8f\x90\x91\x92"
STACK_GLOBAL, MEMOIZE, FRAME, BYTEARRAY8 = b"\x93\x94\x95\x96"

_LAST_PROTOCOL: Final = 5
_LENGTH_BYTES: Final = {
    **dict.fromkeys((SHORT_BINSTRING, SHORT_BINBYTES, SHORT_BINUNICODE), 1),
    **dict.fromkeys((BINSTRING, BINBYTES, BINUNICODE), 4),
    **dict.fromkeys((BINUNICODE8, BINBYTES8, BYTEARRAY8), 8),
}


class Operations:
    """The state of reading one pickle but for the stack, and the operations outside the loop.

    Those in `others` take the stack, the code and the position behind it, and return the position
    behind their argument.
    """

    def __init__(self, stream: Stream, budget: Budget) -> None:
        self.stream = stream
        self.builder = Builder(budget)
        self.memo: dict[int, object] = {}
        self._memo_keys: dict[int, int] = {}
        """Where dtypes that await their state are noted: they are replaced when it comes."""
        self.others: Final[dict[int, Callable[[list[Any], int, int], int]]] = {
            **dict.fromkeys(_LENGTH_BYTES, self._bytes_or_text),
            **dict.fromkeys((FLOAT, INT, LONG, STRING, UNICODE, GET, PUT), self._line),
            **dict.fromkeys((LONG1, LONG4), self._long),
            **dict.fromkeys((REDUCE, NEWOBJ, NEWOBJ_EX), self._call),
            **dict.fromkeys((PROTO, FRAME), self._skip),
            **dict.fromkeys((GLOBAL, STACK_GLOBAL), self._name),
            BUILD: self._build,
            SETITEM: self._set_item,
        }

    def end_mark(self, code: int, stack: list[Any], items: list[Any], at: int) -> int:
        """The rarer operations that take everything above the last mark."""
        if code == LIST:
            stack.append(items)
        elif code == DICT:
            stack.append({})
            self.set_items(stack[-1], items)
        elif code == FROZENSET:
            self.builder.check_keys(items, 0)
            stack.append(frozenset(items))
        elif code == ADDITEMS:
            target = stack[-1]
            if type(target) is not set:
                raise ValueError("items for something that is no set")
            self.builder.check_keys(items, len(target))
            target.update(items)
        elif code == OBJ:
            stack.append(self.builder.call(items[0], tuple(items[1:])))
        elif code == INST:
            name, at = self._name_in_lines(at)
            stack.append(self.builder.call(name, tuple(items)))
        elif code not in (POP, POP_MARK):
            raise ValueError(f"{code:#04x} is no operation of a pickle that holds values")
        return at

    def append(self, target: object, items: list[object]) -> None:
        if type(target) is not list:
            raise ValueError("items for something that is no list")
        target.extend(items)

    def set_items(self, target: object, items: list[object]) -> None:
        if type(target) is not dict and type(target) is not OrderedDict:
            raise ValueError("keys for something that is no dictionary")
        keys = items[::2]
        self.builder.check_keys(keys, len(target))
        target.update(zip(keys, items[1::2], strict=True))

    def _set_item(self, stack: list[Any], _: int, at: int) -> int:
        items = stack[-2:]
        del stack[-2:]
        self.set_items(stack[-1], items)
        return at

    def _skip(self, _: list[Any], code: int, at: int) -> int:
        if code == FRAME:
            return at + 8
        if self.stream.window[at] > _LAST_PROTOCOL:
            raise ValueError("a pickle of an unknown protocol")
        return at + 1

    def _bytes_or_text(self, stack: list[Any], code: int, at: int) -> int:
        length, at = self._number(at, _LENGTH_BYTES[code])
        if code == BYTEARRAY8:
            changeable, at = self.stream.take_changeable(at, length)
            stack.append(changeable)
            return at
        content, at = self.stream.take(at, length)
        if code in (BINUNICODE, BINUNICODE8):
            stack.append(content.decode("utf-8", "surrogatepass"))
        elif code == BINSTRING:  # of Python 2
            stack.append(content.decode("latin-1"))
        else:
            stack.append(content)
        return at

    def _long(self, stack: list[Any], code: int, at: int) -> int:
        length, at = self._number(at, 1 if code == LONG1 else 4)
        if length > MOST_BITS // 8:
            raise ValueError("a number of too many digits")
        content, at = self.stream.take(at, length)
        stack.append(int.from_bytes(content, "little", signed=True))
        return at

    def _number(self, at: int, length: int) -> tuple[int, int]:
        return int.from_bytes(self.stream.window[at : at + length], "little"), at + length

    def _line(self, stack: list[Any], code: int, at: int) -> int:
        """The operations of protocol 0, whose arguments are lines of text."""
        line, at = self.stream.line(at)
        if code == PUT:
            self.memo[checked_integer(line)] = stack[-1]
        elif code == GET:
            stack.append(self.memo[checked_integer(line)])
        elif code == FLOAT:
            stack.append(float(line))
        elif code == UNICODE:
            stack.append(line.decode("raw-unicode-escape"))
        elif code == STRING:
            stack.append(_quoted(line))
        elif code == INT and line in (b"00", b"01"):
            stack.append(line == b"01")
        else:
            stack.append(checked_integer(line.removesuffix(b"L"), 0))
        return at

    def _name(self, stack: list[Any], code: int, at: int) -> int:
        if code == GLOBAL:
            name, at = self._name_in_lines(at)
        else:
            module, attribute = stack[-2:]
            del stack[-2:]
            name = find_name(module, attribute)
        stack.append(name)
        return at

    def _name_in_lines(self, at: int) -> tuple[object, int]:
        module, at = self.stream.line(at)
        attribute, at = self.stream.line(at)
        return find_name(module.decode(), attribute.decode()), at

    def _call(self, stack: list[Any], code: int, at: int) -> int:
        """Calls of functions and the making of objects are the same here."""
        if code == NEWOBJ_EX and stack.pop() != {}:
            raise ValueError("an object of an unknown layout")
        arguments = stack.pop()
        value = self.builder.call(stack.pop(), arguments)
        stack.append(value)
        if isinstance(value, np.dtype):
            key = self._next_memo_key(at)
            if key is not None:
                self._memo_keys[id(value)] = key
        return at

    def _next_memo_key(self, at: int) -> int | None:
        """Under which number the next operation notes the value, if it does so.

        Whatever writes pickles notes a new object at once.
        """
        code = self.stream.window[at]
        if code == MEMOIZE:
            return len(self.memo)
        if code == PUT:
            return checked_integer(self.stream.line(at + 1)[0])
        size = {BINPUT: 1, LONG_BINPUT: 4}.get(code)
        return None if size is None else self._number(at + 1, size)[0]

    def _build(self, stack: list[Any], _: int, at: int) -> int:
        state = stack.pop()
        value = stack.pop()
        built = self.builder.with_state(value, state)
        stack.append(built)
        if isinstance(built, np.dtype):
            key = self._memo_keys.pop(id(value), None)
            if key is not None:
                self.memo[key] = built
        return at


def _quoted(line: bytes) -> str:
    """A string of Python 2, as protocol 0 writes it."""
    if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in (b"'", b'"'):
        raise ValueError("a string without quotes")
    content: bytes = codecs.escape_decode(line[1:-1])[0]
    return content.decode("latin-1")
