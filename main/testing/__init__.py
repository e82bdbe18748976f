"""Benchmarks: metrics, protocols, and what is reported."""
