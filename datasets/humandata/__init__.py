"""HumanData files: read, written, checked, counted, joined."""
