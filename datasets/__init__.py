"""HumanData files -> samples: format, sources table, columnar cache, augmentation, targets."""
