"""Plain values in and out: geometry, images, video, drawing, files. Knows nothing of the other folders."""
