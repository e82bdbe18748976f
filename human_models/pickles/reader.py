"""Reads the operations of a pickle and does only what makes plain values and arrays.

A pickle is a program for a machine with a stack and numbered notes (the memo). Python's own
machine calls what the program names and trusts what it says of memory; this one knows the
operations by themselves and leaves names to `values`, which has a short list of them.
"""

import struct
from typing import Any, Final

from human_models.pickles.limits import Budget
from human_models.pickles.operations import (
    APPEND,
    APPENDS,
    BINFLOAT,
    BINGET,
    BININT,
    BININT1,
    BININT2,
    BINPUT,
    BINUNICODE,
    DUP,
    EMPTY_DICT,
    EMPTY_LIST,
    EMPTY_SET,
    EMPTY_TUPLE,
    LONG_BINGET,
    LONG_BINPUT,
    MARK,
    MEMOIZE,
    NEWFALSE,
    NEWTRUE,
    NONE,
    POP,
    PROTO,
    SETITEMS,
    SHORT_BINSTRING,
    SHORT_BINUNICODE,
    STOP,
    TUPLE,
    TUPLE1,
    TUPLE3,
    Operations,
)
from human_models.pickles.stream import Stream

_STRINGS: Final = frozenset({str})
_read_float: Final = struct.Struct(">d").unpack_from
_read_int: Final = struct.Struct("<i").unpack_from


def read_pickle(stream: Stream, budget: Budget) -> object:
    """The content of a pickle, with placeholders for objects of classes that are not loaded.

    Raises:
        UnknownNameError: it names something that is not on the list of `values`.
        ValueError, TypeError, LookupError, EOFError, OverflowError, struct.error: it is damaged,
            or no honest program wrote it.
    """
    operations = Operations(stream, budget)
    memo, others, are_strings = operations.memo, operations.others, _STRINGS.issuperset
    window, low, at = stream.window, stream.low, 0
    stack: list[Any] = []
    below: list[list[Any]] = []  # what lies below the marks, a list a mark
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
        elif code == BININT:
            stack.append(_read_int(window, at)[0])
            at += 4
        elif code == BINUNICODE and window[at + 1 : at + 4] == b"\0\0\0":
            end = at + 4 + window[at]
            stack.append(window[at + 4 : end].decode("utf-8", "surrogatepass"))
            at = end
        elif code == LONG_BINPUT:
            memo[int.from_bytes(window[at : at + 4], "little")] = stack[-1]
            at += 4
        elif code == BINPUT:
            memo[window[at]] = stack[-1]
            at += 1
        elif code == MARK:
            below.append(stack)
            stack = []
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
            stack.append(memo[int.from_bytes(window[at : at + 4], "little")])
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
