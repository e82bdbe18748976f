"""The doors: inference, conversion, health check; and what they orchestrate."""
