"""The people of a clip over time: from estimates of single frames to identity and motion.

rows.py     raw and final rows of all people, on the disk
camera.py   the clip's camera and how it moves, and bodies placed in it
turns.py    rotation, zoom and focal length of a camera that stays in its place, from corners
camera_motion.py  how the camera turns, zooms and moves, from what is behind people
odometry.py  the path of a camera that moves
stitch.py   which tracks are one person
refinement.py  raw rows moved onto keypoints
kinematics.py  error vectors of estimates, their covariance, and derivatives of the joints
trajectories.py  from raw rows to final ones: one shape, gaps filled, smooth, flagged
standing.py  the ground, feet that touch it, and the equations that the world is solved with
legs.py     legs that bend so that feet stand where they should
world.py    people in a world that does not move with the camera
results.py  writing a folder of results, and results as a HumanData file
result_reader.py  reading one, checked
"""
