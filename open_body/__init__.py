"""Builder of the open body: a stand-in for SMPL-X made of CC0 MakeHuman assets.

`python -m open_body.build` writes human_models/stand_in/. Its modules, in the order in
which the build needs them:

    assets          CC0 files -> base mesh, morph targets, face units, rig, clothes
    skeleton        MakeHuman's bones -> SMPL-X's joints, skinning weights and T-pose
    adults          random adults in the T-pose; principal components -> betas
    topology        the 10475 vertices, frozen in topology.npz
    face            face units -> expression components; landmarks
    formats         the content of the files (with the hands' pose components) and how it is written
    build           vertices -> joints; pose correctives; the command

Coordinates everywhere: metres, y up, facing +z, the subject's left = +x.
"""
