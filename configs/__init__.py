"""One Python file per model (data, never executed), the typed schema and the safe reader."""
