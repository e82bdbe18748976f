"""The viewer: a page of its own, video beside 3D scene, out of a folder of results."""
