"""The sheet of people to choose from."""

import numpy as np

from main.motion.rows import FINAL_ROW
from main.pipeline.overlay import contact_sheet
from utils.source import Frame

SIZE = (160, 120)


def test_sheet_shows_each_person_where_they_are_seen_best(row_file):
    rows = np.zeros(20, FINAL_ROW)
    rows["person"], rows["frame_index"] = np.repeat([1, 2], 10), np.tile(np.arange(10), 2)
    rows["score"], rows["box_xywh"] = 0.9, [20, 20, 40, 80]
    rows["score"][13] = 1.0
    rows["truncation"][:5] = 0.9
    rows["occlusion"][6:10] = 1.0  # person 1 is best in frame 5, person 2 in frame 3
    frames = [Frame(k, k / 30, np.full((SIZE[1], SIZE[0], 3), 20 * k, np.uint8)) for k in range(10)]
    file = row_file(rows)
    sheet = contact_sheet(file, frames, {1, 2})
    middle = sheet[140]
    assert middle[100].tolist() == [100] * 3
    assert middle[300].tolist() == [60] * 3
    assert contact_sheet(file, frames, {2}).shape[1] == sheet.shape[1] // 2
