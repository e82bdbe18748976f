"""HumanData files: reading, writing, checking, drawing, merging.

- `reader.read_humandata`: a file as columns for training and testing.
- `file.read_entries`, `file.take_rows`: a file as a dictionary of entries, for changing it.
- `writer.write_humandata`, `writer.humandata_entries`: writing a file.
- `check.check_humandata`, `report`: errors and statistics of a file, read by `lenient`.
- `merge.merge`, `parameters.entries_of_parameters`: files from other files.
"""
