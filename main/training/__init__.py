"""Training: `run` is the page to begin with, `recipes` says what can be learned."""
