"""Pictures and clips of open people, drawn with exact ground truth: training data from nothing."""
