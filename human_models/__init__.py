"""The body: joint tables, SMPL-X and SMPL layers, their files, and the open body."""
