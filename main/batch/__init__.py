"""Many clips with one model: which, how far, and what became of each."""
