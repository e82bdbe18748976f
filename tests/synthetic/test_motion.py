"""Motion: feet that do not slide or sink, limbs that do not jump."""

import numpy as np
import pytest

from human_models.joints import SIDES
from synthetic.clips import climbing, crossing, make_physique, sitting, standing
from synthetic.motion import FPS, Script
from synthetic.pictures import Studio
from synthetic.skeleton import JOINT, turn

FRAMES = 150
WHERE = (0.3, -4.0)


@pytest.fixture(scope="module")
def studio():
    return Studio("test")


@pytest.fixture(scope="module", params=(0, 1))
def physique(request, studio):
    rng = np.random.default_rng(request.param)
    look = studio.stylist.draw(rng, fine=False)
    return make_physique(studio, look, rng.standard_normal(10).astype(np.float32))


def scripts(physique):
    rng = np.random.default_rng(3)
    return {
        "walk and turn": Script(physique, -2, -4, 90).walk([(0, -4), (0, -2)]),
        "turn": Script(physique, 0, -4, 0).turn_to(170),
        "sit": sitting(rng, physique, WHERE, FRAMES / FPS),
        "stand": standing(rng, physique, WHERE, FRAMES / FPS),
        "climb": climbing(rng, physique, WHERE, FRAMES / FPS),
        "cross": crossing(rng, physique, WHERE, 4.0, FRAMES / FPS),
    }


def floor_under(points, blocks):
    """Height of the floor or of the block that is under each point."""
    heights = np.zeros(points.shape[:-1])
    for block in blocks:
        away = points[..., [0, 2]] - block.middle
        own = away @ turn("y", block.yaw_deg)[np.ix_((0, 2), (0, 2))]
        inside = (np.abs(own) < np.array(block.size)[[0, 2]] / 2).all(axis=-1)
        heights = np.maximum(heights, inside * block.size[1])
    return heights


def soles(physique, motion):
    """World places of the soles under heels and balls (T, 4, 3), and of all joints (T, 22, 3)."""
    skeleton, points, joints = physique.skeleton, [], []
    for rotations, pelvis in zip(motion.rotations, motion.pelvis, strict=True):
        turned, places = skeleton.world(rotations)
        places = places + pelvis - places[0]
        heel = np.array([0, -physique.ankle_m, -physique.heel_m])
        for side in SIDES:
            ankle, ball = JOINT[f"{side}_ankle"], JOINT[f"{side}_foot"]
            under = np.array([0, -physique.ankle_m - skeleton.offsets[ball][1], 0])
            points.append(places[ankle] + turned[ankle] @ heel)
            points.append(places[ball] + turned[ball] @ under)
        joints.append(places)
    return np.array(points).reshape(-1, 4, 3), np.array(joints)


@pytest.mark.parametrize("name", ["walk and turn", "turn", "sit", "stand", "climb", "cross"])
def test_feet_neither_slide_nor_sink(physique, name):
    motion = scripts(physique)[name].play(np.random.default_rng(0), FRAMES)
    points, joints = soles(physique, motion)
    height = points[..., 1] - floor_under(points, motion.blocks)
    touching = (height[1:] < 0.005) & (height[:-1] < 0.005)
    speed = np.linalg.norm(np.diff(points[..., [0, 2]], axis=0), axis=-1) * FPS
    assert touching.mean() > 0.3
    assert speed[touching].mean() < 0.01
    assert height.min() > -0.01
    assert np.abs(np.diff(joints, 2, axis=0)).max() * FPS**2 < 100  # m/s2: nothing jumps


def test_who_sits_down_is_on_the_seat_and_gets_up(physique):
    script = Script(physique, 0, -4, 30).wait(0.5).sit(1.0, 0.45)
    motion = script.play(np.random.default_rng(0), FRAMES)
    (seat,) = motion.blocks
    lowest = int(motion.pelvis[:, 1].argmin())
    assert motion.pelvis[lowest, 1] == pytest.approx(0.45 + 0.105, abs=0.01)
    assert floor_under(motion.pelvis[lowest], [seat]) == 0.45
    assert motion.pelvis[[0, -1], 1] == pytest.approx(motion.pelvis[:, 1].max(), abs=0.02)


def test_hands_and_face_follow_the_script(physique):
    script = Script(physique, 0, -4, 0)
    for at, shape in enumerate(("spread", "fist")):
        script.hand("left", shape, at * 1.5)
    motion = script.face(0.5, 1.0, 2.0).play(np.random.default_rng(0), 90)
    opened, closed = motion.hands["left"][[35, 85]]
    assert np.abs(closed - opened).max() > 1.0
    assert np.abs(motion.hands["right"][85] - motion.hands["right"][35]).max() < 0.6
    assert motion.smile[0] == 0
    assert motion.smile[60] == pytest.approx(1.0)
    assert motion.jaw_rad[18:70].max() > 0.06
    assert motion.jaw_rad[80:].max() < 0.03
