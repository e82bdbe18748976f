"""Pictures of training: joints are drawn where they are."""

import numpy as np
import torch

from configs.reader import load_config
from main.training.validation import joint_pictures
from tests.main.training.conftest import CONFIG


def test_truth_is_above_and_prediction_below_at_their_places():
    config = load_config(CONFIG).model
    batch = {
        "input_img": torch.zeros(2, 256, 192, 3),
        "target_joint_img": torch.zeros(2, 137, 3),
        "meta_joint_trunc": torch.zeros(2, 137, 1),
    }
    batch["target_joint_img"][1, 5, :2] = torch.tensor([3.0, 10.0])  # of a grid of 12 by 16
    batch["meta_joint_trunc"][1, 5] = 1
    predicted = torch.full((2, 137, 2), torch.nan)
    predicted[0, 7] = torch.tensor([150.0, 20.0])
    picture = joint_pictures(batch, predicted, config).permute(1, 2, 0).numpy()
    assert picture.shape == (512, 384, 3)
    rows, columns = np.nonzero(picture.any(axis=2))
    above = rows < 256
    assert np.abs(rows[above] - 160).max() <= 2
    assert np.abs(columns[above] - (192 + 48)).max() <= 2
    assert np.abs(rows[~above] - (256 + 20)).max() <= 2
    assert np.abs(columns[~above] - 150).max() <= 2
    assert above.any()
    assert not above.all()
