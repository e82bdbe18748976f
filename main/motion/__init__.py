"""The people of a clip over time: from estimates of single frames to identities and motion.

rows.py           raw, final and world rows of all people, on the disk
camera.py         the camera of a clip, and bodies placed in it
turns.py          rotation, zoom and focal length of a camera that stays in its place
odometry.py       the path of a camera that moves
camera_motion.py  the motion of the camera, from the background behind people
stitch.py         identities: which tracks are one person
kinematics.py     error vectors of estimates, their covariance, and derivatives of joints
refinement.py     bodies moved onto keypoints
neighbours.py     corrections of keypoints and estimates by other people and other frames
trajectories.py   from raw rows to final rows: one shape, gaps filled, smoothed, flagged
ground.py         the plane that feet stand on, and levels over it
standing.py       contacts of feet, the up direction, and the scale of the camera's motion
legs.py           legs that are bent so that feet stand where they should
world.py          people in a world that does not move with the camera
results.py        writing of a result folder
result_names.py   names of result folders
result_reader.py  reading and validation of a result folder
pseudo_labels.py  results as a HumanData file
"""
