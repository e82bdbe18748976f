"""Pictures and clips of synthetic people, rendered with exact ground truth.

production.py    `main.synthesize`: a data set, drawn by several processes
pictures.py      crops of one person, and scenes of several people
clips.py         clips of people who cross each other; people of a clip in every frame
demo.py          the clip in demo/, in the hall
shots.py         clips in the hall with a moving camera
hall.py          the light of the hall; furniture.py builds its objects
poses.py         body poses; arms.py has those of arms and hands
motion.py        motion that is planned from footsteps
skeleton.py      rotations, inverse kinematics, penetration of limbs
wardrobe.py      garments; appearance.py draws colours, hair and faces; textures.py patterns
figures.py       posing of dressed people, and their meshes
rendering.py     cameras, objects, light, and from meshes to a photograph
backgrounds.py   floors, walls, photographs, and shadows
ground_truth.py  annotations
lifting.py       simulated keypoints, for training without pictures
"""
