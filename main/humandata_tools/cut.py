"""HumanData files from HumanData files: joined, cut, chosen from."""

import argparse
import logging
from fnmatch import fnmatch

import numpy as np
from jaxtyping import Int

from datasets.humandata.entries import Entries, read_entries, take_rows
from datasets.humandata.join import Part
from datasets.humandata.merge import merge
from datasets.humandata.writer import write_humandata
from utils.errors import UserError

log = logging.getLogger(__name__)


def merge_files(arguments: argparse.Namespace) -> None:
    merged = merge([Part(path, read_entries(path)) for path in arguments.files], arguments.keep)
    _write(arguments, merged)


def slice_file(arguments: argparse.Namespace) -> None:
    entries = read_entries(arguments.file)
    rows = rows_of_slice(arguments.rows, len(entries["image_path"]))
    _write(arguments, take_rows(entries, rows))


def rows_of_slice(words: str, length: int) -> Int[np.ndarray, " K"]:
    """START:STOP[:STEP] as in Python, each of which may be left out.

    Raises UserError for what is no slice, or one without rows.
    """
    pieces = words.split(":")
    try:
        numbers = [int(piece) if piece.strip() else None for piece in pieces]
        chosen = np.arange(length)[slice(*numbers)] if len(pieces) in (2, 3) else None
    except ValueError:  # no number, or a step of 0
        chosen = None
    if chosen is None:
        raise UserError(f"--rows {words}: say START:STOP or START:STOP:STEP")
    if not len(chosen):
        raise UserError(f"--rows {words}: no such rows; the file has {length}")
    return chosen


def subset(arguments: argparse.Namespace) -> None:
    entries = read_entries(arguments.file)
    rows = np.arange(len(entries["image_path"]))
    if arguments.images_matching is not None:
        pattern, paths = arguments.images_matching, entries["image_path"].tolist()
        rows = np.array([i for i, path in enumerate(paths) if fnmatch(path, pattern)], int)
        if not len(rows):
            raise UserError(
                f"{arguments.file}: no image_path is like '{pattern}'; the first is '{paths[0]}'"
            )
    if arguments.sample is not None and arguments.sample < len(rows):
        generator = np.random.default_rng(arguments.seed)
        rows = np.sort(generator.choice(rows, arguments.sample, replace=False))
    _write(arguments, take_rows(entries, rows))


def _write(arguments: argparse.Namespace, entries: Entries) -> None:
    write_humandata(arguments.output, entries)
    log.info("%s: %d rows", arguments.output, len(entries["image_path"]))
