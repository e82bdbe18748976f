"""Reads the operations of a pickle and does only what makes plain values and arrays.

A pickle is a program for a machine with a stack and numbered notes (the memo). Python's own
machine calls what the program names and trusts what it says of memory; this one knows the
operations themselves and leaves names to `pickle_values`, which has a short list of them.
"""

import codecs
import re
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterable
from io import BufferedReader
from itertools import chain
from typing import Any, Final

import numpy as np

from human_models.pickle_values import MOST_BITS, Budget, Builder, checked_integer, find_name

Source = BufferedReader | zipfile.ZipExtFile
"""A file, or a member of an archive."""

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
_CHUNK: Final = 1 << 20
_MARGIN: Final = 300
"""More than an operation of a pickle takes, other than those with long texts."""
_LENGTH_BYTES: Final = {
    **dict.fromkeys((SHORT_BINSTRING, SHORT_BINBYTES, SHORT_BINUNICODE), 1),
    **dict.fromkeys((BINSTRING, BINBYTES, BINUNICODE), 4),
    **dict.fromkeys((BINUNICODE8, BINBYTES8, BYTEARRAY8), 8),
}
_STRINGS: Final = frozenset({str})
_TEXTS: Final = frozenset({BINUNICODE, SHORT_BINUNICODE})
_read_float: Final = struct.Struct(">d").unpack_from
_read_int: Final = struct.Struct("<i").unpack_from
_read_number: Final = struct.Struct("<I").unpack_from

# Lists of numbers and references are runs of one operation behind a mark, taken at once.
_RUNS: Final = {
    BININT1: (re.compile(rb"(?s:K.)++"), struct.Struct("xB")),
    BININT2: (re.compile(rb"(?s:M..)++"), struct.Struct("<xH")),
    BININT: (re.compile(rb"(?s:J.{4})++"), struct.Struct("<xi")),
    BINFLOAT: (re.compile(rb"(?s:G.{8})++"), struct.Struct(">xd")),
    BINGET: (re.compile(rb"(?s:h.)++"), struct.Struct("xB")),
    LONG_BINGET: (re.compile(rb"(?s:j.{4})++"), struct.Struct("<xI")),
}
_NUMBERS_AHEAD: Final = {code: 8 * layout.size for code, (_, layout) in _RUNS.items()}
"""Where a list of so many numbers has another: shorter ones take longer as runs."""


class _Stream:
    """A window on a file, moved by its user; nothing is allocated that the file cannot fill.

    Positions are indices into `window`. Up to `low` (inclusive) at least _MARGIN bytes lie ahead.
    """

    def __init__(self, file: Source, size: int) -> None:
        self._file = file
        self._left = size
        """Bytes of the file behind the window, as far as it is said to go on."""
        self.window = b""
        self.low = -1

    def refill(self, at: int) -> int:
        """Move the window on so that it starts at position `at`; the new position."""
        rest = self.window[at:]
        chunk = self._read(min(_CHUNK, self._left))
        self.window = rest + chunk if rest else chunk
        self.low = len(self.window) - _MARGIN if self._left else len(self.window)
        return 0

    def _read(self, count: int) -> bytes:
        chunk = self._file.read(count) if count else b""
        self._left = self._left - len(chunk) if len(chunk) == count else 0
        return chunk

    def number(self, at: int, length: int) -> tuple[int, int]:
        """The little-endian number of `length` bytes at `at`, and the position behind it."""
        return int.from_bytes(self.window[at : at + length], "little"), at + length

    def take(self, at: int, count: int) -> tuple[bytes, int]:
        """`count` bytes from position `at`, and the position behind them.

        Raises EOFError where there are not so many.
        """
        rest = self.window[at : at + count]
        if len(rest) == count:
            return rest, at + count
        if at > len(self.window) or count - len(rest) > self._left:
            raise EOFError("it ends early")
        if isinstance(self._file, BufferedReader):  # one read of everything copies less
            self._file.seek(-len(rest), 1)
            self._left += len(rest)
            content = self._read(count)
        else:
            content = rest + self._read(count - len(rest))
        if len(content) != count:
            raise EOFError("it ends early")
        return content, self.refill(len(self.window))

    def line(self, at: int) -> tuple[bytes, int]:
        """The bytes up to the next line feed, and the position behind it.

        Raises EOFError where there is none.
        """
        pieces = []
        while (end := self.window.find(b"\n", at)) < 0:
            pieces.append(self.window[at:])
            if not self._left:
                raise EOFError("it ends early")
            at = self.refill(len(self.window))
        return b"".join((*pieces, self.window[at:end])), end + 1


class _Operations:
    """The state of reading one pickle but for the stack, and the operations outside the loop.

    Those in `others` take the stack, the code and the position behind it, and return the position
    behind their argument.
    """

    def __init__(self, stream: _Stream, budget: Budget) -> None:
        self.stream = stream
        self.builder = Builder(budget)
        self.memo: dict[int, Any] = {}
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

    def numbers(self, stack: list[Any], at: int) -> int:
        """Runs of the operations of `_RUNS` from `at`."""
        window = self.stream.window
        while (code := window[at]) in _RUNS and at < self.stream.low:
            pattern, layout = _RUNS[code]
            run = pattern.match(window, at)
            if run is None:
                break
            if layout.size == 2:
                values: Iterable[Any] = run[0][1::2]
            else:
                values = chain.from_iterable(layout.iter_unpack(run[0]))
            if code in (BINGET, LONG_BINGET):
                values = map(self.memo.__getitem__, values)
            stack.extend(values)
            at = run.end()
        return at

    def texts(self, stack: list[Any], at: int) -> int:
        """Texts that are noted in the memo one after the other, from `at`."""
        window, low, memo = self.stream.window, self.stream.low, self.memo
        while at < low and window[at] == SHORT_BINUNICODE:
            end = at + 2 + window[at + 1]
            if window[end] != MEMOIZE:
                break
            text = window[at + 2 : end].decode("utf-8", "surrogatepass")
            memo[len(memo)] = text
            stack.append(text)
            at = end + 1
        while at < low and window[at] == BINUNICODE and window[at + 2 : at + 5] == b"\0\0\0":
            end = at + 5 + window[at + 1]
            text = window[at + 5 : end].decode("utf-8", "surrogatepass")
            if window[end] == LONG_BINPUT:
                memo[_read_number(window, end + 1)[0]] = text
                at = end + 5
            elif window[end] == BINPUT:
                memo[window[end + 1]] = text
                at = end + 2
            else:
                break
            stack.append(text)
        return at

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

    def append(self, target: object, items: list[Any]) -> None:
        if type(target) is not list:
            raise ValueError("items for something that is no list")
        target.extend(items)

    def set_items(self, target: Any, items: list[Any]) -> None:
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
        length, at = self.stream.number(at, _LENGTH_BYTES[code])
        content, at = self.stream.take(at, length)
        if code in (BINUNICODE, BINUNICODE8):
            stack.append(content.decode("utf-8", "surrogatepass"))
        elif code == BINSTRING:  # of Python 2
            stack.append(content.decode("latin-1"))
        else:
            stack.append(bytearray(content) if code == BYTEARRAY8 else content)
        return at

    def _long(self, stack: list[Any], code: int, at: int) -> int:
        length, at = self.stream.number(at, 1 if code == LONG1 else 4)
        if length > MOST_BITS // 8:
            raise ValueError("a number of too many digits")
        content, at = self.stream.take(at, length)
        stack.append(int.from_bytes(content, "little", signed=True))
        return at

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
        return None if size is None else self.stream.number(at + 1, size)[0]

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


def read_pickle(file: Source, size: int, budget: Budget) -> object:
    """The content of a pickle of at most `size` bytes; unknown objects are placeholders.

    Raises:
        UnknownNameError: it names something that is not on the list of `pickle_values`.
        ValueError, TypeError, LookupError, EOFError, OverflowError, struct.error: it is damaged,
            or no honest program wrote it.
    """
    stream = _Stream(file, size)
    operations = _Operations(stream, budget)
    memo, others, are_strings = operations.memo, operations.others, _STRINGS.issuperset
    numbers_ahead = _NUMBERS_AHEAD
    window, low, at = stream.window, stream.low, 0
    stack: list[Any] = []
    below: list[list[Any]] = []  # what lies below the marks, one list per mark
    # The order of the branches is that of frequency in annotations. Texts and numbers that end
    # outside of the window are cut short here, but then there is no next operation.
    while True:
        if at > low:
            at = stream.refill(at)
            window, low = stream.window, stream.low
        code = window[at]
        at += 1
        if code >= PROTO:
            if code == MEMOIZE:
                memo[len(memo)] = stack[-1]
            elif code == SHORT_BINUNICODE:
                end = at + 1 + window[at]
                stack.append(window[at + 1 : end].decode("utf-8", "surrogatepass"))
                at = end
            elif code == NEWTRUE:
                stack.append(True)
            elif code == NEWFALSE:
                stack.append(False)
            elif TUPLE1 <= code <= TUPLE3:
                count = code - TUPLE1 + 1
                if len(stack) < count:
                    raise ValueError("a tuple of things that are not there")
                stack[-count:] = [tuple(stack[-count:])]
            elif code == EMPTY_SET:
                stack.append(set())
            elif code in others:
                at = others[code](stack, code, at)
                window, low = stream.window, stream.low
            else:
                items = stack
                stack = below.pop()
                at = operations.end_mark(code, stack, items, at)
        elif code == BINGET:
            stack.append(memo[window[at]])
            at += 1
        elif code == BININT1:
            stack.append(window[at])
            at += 1
        elif code == BININT2:
            stack.append(window[at] | window[at + 1] << 8)
            at += 2
        elif code == BINFLOAT:
            stack.append(_read_float(window, at)[0])
            at += 8
        elif code == BINUNICODE and window[at + 1 : at + 4] == b"\0\0\0":
            end = at + 4 + window[at]
            stack.append(window[at + 4 : end].decode("utf-8", "surrogatepass"))
            at = end
        elif code == LONG_BINPUT:
            memo[_read_number(window, at)[0]] = stack[-1]
            at += 4
        elif code == BINPUT:
            memo[window[at]] = stack[-1]
            at += 1
        elif code == MARK:
            below.append(stack)
            stack = []
            following = window[at]
            if following in _TEXTS:
                at = operations.texts(stack, at)
            elif following in numbers_ahead:
                ahead = at + numbers_ahead[following]
                if ahead < low and window[ahead] == following:
                    at = operations.numbers(stack, at)
        elif code == EMPTY_DICT:
            stack.append({})
        elif code == SETITEMS:
            items = stack
            stack = below.pop()
            target, keys = stack[-1], items[::2]
            if type(target) is dict and are_strings(map(type, keys)) and not len(items) & 1:
                target.update(zip(keys, items[1::2]))  # noqa: B905 (checked)
            else:
                operations.set_items(target, items)
        elif code == LONG_BINGET:
            stack.append(memo[_read_number(window, at)[0]])
            at += 4
        elif code == BININT:
            stack.append(_read_int(window, at)[0])
            at += 4
        elif code == SHORT_BINSTRING:
            end = at + 1 + window[at]
            stack.append(window[at + 1 : end].decode("latin-1"))
            at = end
        elif code == EMPTY_LIST:
            stack.append([])
        elif code == EMPTY_TUPLE:
            stack.append(())
        elif code == TUPLE:
            items = stack
            stack = below.pop()
            stack.append(tuple(items))
        elif code == NONE:
            stack.append(None)
        elif code == APPENDS:
            items = stack
            stack = below.pop()
            operations.append(stack[-1], items)
        elif code == APPEND:
            item = stack.pop()
            operations.append(stack[-1], [item])
        elif code in others:
            at = others[code](stack, code, at)
            window, low = stream.window, stream.low
        elif code == STOP:
            return stack.pop()
        elif code == DUP:
            stack.append(stack[-1])
        elif code == POP and stack:
            stack.pop()
        else:
            items = stack
            stack = below.pop()
            at = operations.end_mark(code, stack, items, at)
            window, low = stream.window, stream.low
