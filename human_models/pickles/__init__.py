"""Reads pickles and NumPy files of strangers: plain values and arrays, and nothing that acts."""
