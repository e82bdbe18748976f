"""What the door `main.humandata` can do."""
