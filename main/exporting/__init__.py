"""Animated characters out of result files, for the programs of others."""
