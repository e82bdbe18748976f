"""The commands, one module each, and the packages that they run."""
