"""Measurements behind every claim about speed; each prints its ratio and its command."""
