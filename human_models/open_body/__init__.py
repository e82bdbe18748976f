"""Builder of the open body: a stand-in for SMPL-X made of CC0 MakeHuman assets.

`python -m human_models.open_body.build` writes human_models/stand_in/. The story, in the order in
which the build runs:

    assets              CC0 files -> base mesh, shape targets, face units, rig
    topology            the 10475 vertices, frozen in topology.npz; `scratch` makes them anew
                        (regions, quads, decimate, eyeballs, anatomy, order, smpl_topology)
    phenotypes, adults  random adults, brought to SMPL-X's T-pose (tpose, bones)
    shape_space         principal components -> betas
    expression          face units -> expression components
    joint_regressor     vertices -> joints
    correctives         pose correctives that keep twisted limbs from collapsing
    landmarks, contour  face landmarks, as points on the `surface`
    hands               mean and components of the hand poses
    smplx_format, smpl_format, companions, outfit   the files, written by `storage`

Coordinates everywhere: metres, y up, facing +z, the subject's left = +x.
"""
