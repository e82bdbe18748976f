"""One Python file a model (data, never executed), the typed schema and the safe reader."""
