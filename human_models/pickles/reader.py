"""Reads the operations of a pickle and does only what makes plain values and arrays.

A pickle is a program for a machine with a stack and numbered notes (the memo). Python's own
machine calls what the program names and trusts what it says of memory; this one knows the
operations by themselves and leaves names to `values`, which has a short list of them.
"""

import codecs
import struct
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final

import numpy as np

from human_models.pickles.limits import MOST_BITS, Budget, checked_integer
from human_models.pickles.stream import Stream
from human_models.pickles.values import Builder, find_name

_MARK, _STOP, _POP, _POP_MARK, _DUP = b"(.012"
_FLOAT, _INT, _BININT, _BININT1, _LONG, _BININT2, _NONE = b"FIJKLMN"
_REDUCE, _STRING, _BINSTRING, _SHORT_BINSTRING = b"RSTU"
_UNICODE, _BINUNICODE, _APPEND, _BUILD, _GLOBAL = b"VXabc"
_DICT, _EMPTY_DICT, _APPENDS, _GET, _BINGET, _INST = b"d}eghi"
_LONG_BINGET, _LIST, _EMPTY_LIST, _OBJ, _PUT, _BINPUT = b"jl]opq"
_LONG_BINPUT, _SETITEM, _TUPLE, _EMPTY_TUPLE, _SETITEMS, _BINFLOAT = b"rst)uG"
_PROTO, _NEWOBJ, _TUPLE1, _TUPLE2, _TUPLE3 = b"\x80\x81\x85\x86\x87"
_NEWTRUE, _NEWFALSE, _LONG1, _LONG4, _BINBYTES, _SHORT_BINBYTES = b"\x88\x89\x8a\x8bBC"
_SHORT_BINUNICODE, _BINUNICODE8, _BINBYTES8 = b"\x8c\x8d\x8e"
_EMPTY_SET, _ADDITEMS, _FROZENSET, _NEWOBJ_EX = b"\x8f\x90\x91\x92"
_STACK_GLOBAL, _MEMOIZE, _FRAME, _BYTEARRAY8 = b"\x93\x94\x95\x96"

_LAST_PROTOCOL: Final = 5
_LENGTH_BYTES: Final = {
    **dict.fromkeys((_SHORT_BINSTRING, _SHORT_BINBYTES, _SHORT_BINUNICODE), 1),
    **dict.fromkeys((_BINSTRING, _BINBYTES, _BINUNICODE), 4),
    **dict.fromkeys((_BINUNICODE8, _BINBYTES8, _BYTEARRAY8), 8),
}
_PLAIN_KEYS: Final = frozenset({str})
_read_float: Final = struct.Struct(">d").unpack_from
_read_int: Final = struct.Struct("<i").unpack_from


def read_pickle(stream: Stream, budget: Budget) -> tuple[object, bool]:
    """The content of a pickle, and whether there are placeholders in it.

    Raises:
        UnknownNameError: it names something that is not on the list of `values`.
        ValueError, TypeError, LookupError, EOFError, OverflowError, struct.error: it is damaged,
            or no honest program wrote it.
    """
    reader = _Reader(stream, budget)
    return reader.read(), reader.builder.made_placeholders


class _Reader:
    def __init__(self, stream: Stream, budget: Budget) -> None:
        self.stream = stream
        self.builder = Builder(budget)
        self.memo: dict[int, object] = {}
        self._memo_keys: dict[int, int] = {}
        """Where dtypes that await their state are noted: they are replaced when it comes."""
        self._others: Final[dict[int, Callable[[list[Any], int, int], int]]] = {
            **dict.fromkeys(_LENGTH_BYTES, self._bytes_or_text),
            **dict.fromkeys((_FLOAT, _INT, _LONG, _STRING, _UNICODE, _GET, _PUT), self._line),
            **dict.fromkeys((_LONG1, _LONG4), self._long),
            **dict.fromkeys((_REDUCE, _NEWOBJ, _NEWOBJ_EX), self._call),
            **dict.fromkeys((_PROTO, _FRAME), self._skip),
            **dict.fromkeys((_GLOBAL, _STACK_GLOBAL), self._name),
            _BUILD: self._build,
            _SETITEM: self._set_item,
        }

    def read(self) -> object:
        """The value that is on the stack when the program stops."""
        stream, memo, others = self.stream, self.memo, self._others
        window, low, at = stream.window, stream.low, 0
        stack: list[Any] = []
        below: list[list[Any]] = []  # what lies below the marks, a list a mark
        # The order of the branches is that of frequency in annotations. Texts and numbers that
        # end outside of the window are cut short here, but then there is no next operation.
        while True:
            if at > low:
                at = stream.refill(at)
                window, low = stream.window, stream.low
            code = window[at]
            at += 1
            if code == _MEMOIZE:
                memo[len(memo)] = stack[-1]
            elif code == _BINPUT:
                memo[window[at]] = stack[-1]
                at += 1
            elif code == _LONG_BINPUT:
                memo[int.from_bytes(window[at : at + 4], "little")] = stack[-1]
                at += 4
            elif code == _SHORT_BINUNICODE:
                end = at + 1 + window[at]
                stack.append(window[at + 1 : end].decode("utf-8", "surrogatepass"))
                at = end
            elif code == _BINUNICODE and window[at + 1 : at + 4] == b"\0\0\0":
                end = at + 4 + window[at]
                stack.append(window[at + 4 : end].decode("utf-8", "surrogatepass"))
                at = end
            elif code == _SHORT_BINSTRING:
                end = at + 1 + window[at]
                stack.append(window[at + 1 : end].decode("latin-1"))
                at = end
            elif code == _BINGET:
                stack.append(memo[window[at]])
                at += 1
            elif code == _LONG_BINGET:
                stack.append(memo[int.from_bytes(window[at : at + 4], "little")])
                at += 4
            elif code == _BINFLOAT:
                stack.append(_read_float(window, at)[0])
                at += 8
            elif code == _BININT1:
                stack.append(window[at])
                at += 1
            elif code == _BININT2:
                stack.append(window[at] | window[at + 1] << 8)
                at += 2
            elif code == _BININT:
                stack.append(_read_int(window, at)[0])
                at += 4
            elif code == _MARK:
                below.append(stack)
                stack = []
            elif code == _EMPTY_DICT:
                stack.append({})
            elif code == _EMPTY_LIST:
                stack.append([])
            elif code == _EMPTY_TUPLE:
                stack.append(())
            elif code == _SETITEMS:
                items = stack
                stack = below.pop()
                self._set_items(stack[-1], items)
            elif code == _APPENDS:
                items = stack
                stack = below.pop()
                self._list(stack).extend(items)
            elif code == _APPEND:
                item = stack.pop()
                self._list(stack).append(item)
            elif code == _TUPLE:
                items = stack
                stack = below.pop()
                stack.append(tuple(items))
            elif _TUPLE1 <= code <= _TUPLE3:
                count = code - _TUPLE1 + 1
                if len(stack) < count:
                    raise ValueError("a tuple of things that are not there")
                stack[-count:] = [tuple(stack[-count:])]
            elif code == _NONE:
                stack.append(None)
            elif code == _NEWTRUE:
                stack.append(True)
            elif code == _NEWFALSE:
                stack.append(False)
            elif code in others:
                at = others[code](stack, code, at)
                window, low = stream.window, stream.low
            elif code == _STOP:
                return stack.pop()
            elif code == _EMPTY_SET:
                stack.append(set())
            elif code == _DUP:
                stack.append(stack[-1])
            elif code == _POP and stack:
                stack.pop()
            else:
                items = stack
                stack = below.pop()
                at = self._end_mark(code, stack, items, at)
                window, low = stream.window, stream.low

    def _end_mark(self, code: int, stack: list[Any], items: list[Any], at: int) -> int:
        """The rarer operations that take everything above the last mark."""
        if code == _LIST:
            stack.append(items)
        elif code == _DICT:
            stack.append({})
            self._set_items(stack[-1], items)
        elif code == _FROZENSET:
            self.builder.check_keys(items, 0)
            stack.append(frozenset(items))
        elif code == _ADDITEMS:
            target = stack[-1]
            if type(target) is not set:
                raise ValueError("items for something that is no set")
            self.builder.check_keys(items, len(target))
            target.update(items)
        elif code == _OBJ:
            stack.append(self.builder.call(items[0], tuple(items[1:])))
        elif code == _INST:
            name, at = self._name_in_lines(at)
            stack.append(self.builder.call(name, tuple(items)))
        elif code not in (_POP, _POP_MARK):
            raise ValueError(f"{code:#04x} is no operation of a pickle that holds values")
        return at

    def _list(self, stack: list[Any]) -> list[object]:
        if type(stack[-1]) is not list:
            raise ValueError("items for something that is no list")
        return stack[-1]

    def _set_items(self, target: object, items: list[object]) -> None:
        if type(target) is not dict and type(target) is not OrderedDict:
            raise ValueError("keys for something that is no dictionary")
        keys = items[::2]
        if not _PLAIN_KEYS.issuperset(map(type, keys)):
            self.builder.check_keys(keys, len(target))
        target.update(zip(keys, items[1::2], strict=True))

    def _set_item(self, stack: list[Any], _: int, at: int) -> int:
        items = stack[-2:]
        del stack[-2:]
        self._set_items(stack[-1], items)
        return at

    def _skip(self, _: list[Any], code: int, at: int) -> int:
        if code == _FRAME:
            return at + 8
        if self.stream.window[at] > _LAST_PROTOCOL:
            raise ValueError("a pickle of an unknown protocol")
        return at + 1

    def _bytes_or_text(self, stack: list[Any], code: int, at: int) -> int:
        length, at = self._number(at, _LENGTH_BYTES[code])
        content, at = self.stream.take(at, length)
        if code in (_BINUNICODE, _BINUNICODE8):
            stack.append(content.decode("utf-8", "surrogatepass"))
        elif code == _BINSTRING:  # of Python 2
            stack.append(content.decode("latin-1"))
        else:
            stack.append(bytearray(content) if code == _BYTEARRAY8 else content)
        return at

    def _long(self, stack: list[Any], code: int, at: int) -> int:
        length, at = self._number(at, 1 if code == _LONG1 else 4)
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
        if code == _PUT:
            self.memo[checked_integer(line)] = stack[-1]
        elif code == _GET:
            stack.append(self.memo[checked_integer(line)])
        elif code == _FLOAT:
            stack.append(float(line))
        elif code == _UNICODE:
            stack.append(line.decode("raw-unicode-escape"))
        elif code == _STRING:
            stack.append(_quoted(line))
        elif code == _INT and line in (b"00", b"01"):
            stack.append(line == b"01")
        else:
            stack.append(checked_integer(line.removesuffix(b"L"), 0))
        return at

    def _name(self, stack: list[Any], code: int, at: int) -> int:
        if code == _GLOBAL:
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
        if code == _NEWOBJ_EX and stack.pop() != {}:
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
        if code == _MEMOIZE:
            return len(self.memo)
        if code == _PUT:
            return checked_integer(self.stream.line(at + 1)[0])
        size = {_BINPUT: 1, _LONG_BINPUT: 4}.get(code)
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
