"""Training and pre-training: what `main.train` and `main.pretrain` run.

run.py         a run from start to end: config, data, network, processes, trainer, epochs
recipes.py     what differs between objectives: initial networks, batches, losses
trainer.py     the loop over iterations
optimizer.py   groups of parameters, the learning rate, averaged weights
state.py       a run's folder, snapshots, resuming
train_log.py   the log: losses, metrics and pictures
validation.py  metrics during training, and pictures of samples
"""

from main.training.recipes import KEYPOINTS, LIFTING, REGRESSION
from main.training.run import RunOptions, run_training
from main.training.trainer import StopRequest

__all__ = ["KEYPOINTS", "LIFTING", "REGRESSION", "RunOptions", "StopRequest", "run_training"]
