"""From HumanData files to samples: the table of sources, columns in a cache, targets, loader.

- `sources.find_source`: a dataset by its name; `cache.open_dataset`: its people.
- `instances.Instance`: one person; `instances.read_columns`: the people of one file.
- `training_set.TrainingSet`, `training_set.TrainingLoader`: batches of a mixture of datasets.
- `sample.training_sample`, `sample.evaluation_sample`: the network's input for one person.
- `targets.training_targets`: what the network is to learn for an augmented crop.
- `humandata`: annotation files.
"""
