"""Builder of the open body: a stand-in for SMPL-X made of CC0 MakeHuman assets.

`python -m open_body.build` writes human_models/stand_in/. The modules, in the order of use:

    assets          reads base mesh, morph targets, face units, rig and clothes
    skeleton        SMPL-X's joints, skinning weights and T-pose from MakeHuman's bones
    adults          random adults in the T-pose, and betas as their principal components
    topology        the 10475 vertices and their faces, from topology.npz
    face            expression components from face units; landmarks
    formats         content of the files (with the hands' pose components), and writing them
    build           joint regressor, pose correctives and the command

Coordinates are metres everywhere: y up, facing +z, the subject's left is +x.
"""
