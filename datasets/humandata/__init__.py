"""HumanData files: read, written, checked, shown, joined.

- `reader.read_humandata`: a file as columns for training and testing.
- `file.read_entries`, `file.take_rows`: a file as a dictionary of entries, to be changed.
- `writer.write_humandata`, `writer.humandata_entries`: the one way to write a file.
- `check.check_humandata`, `report`: what is in a file, and what is wrong with it.
- `merge.merge`, `parameters.entries_of_parameters`: files from other files.
"""
