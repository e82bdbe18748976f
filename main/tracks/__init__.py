"""From estimates of single frames to people who keep their identity, shape and smoothness."""
