"""Plain values in and out: geometry, images, video, drawing, files; no other folder is known."""
