#!/bin/sh
# Installs what it needs, runs inference with the bundled network on the bundled video, exports the
# people and compares them with the truth. Then runs inference on a photograph by NASA, which the
# package scikit-image contains.
set -eu
cd "$(dirname "$(readlink -f "$0")")/.."
sh scripts/inference.sh smplest_x_demo test_video.mp4 30 --export glb,bvh,amass,viewer
.venv/bin/python -m main.score demo/result_test_video demo/test_video_truth.npz
skimage=$(.venv/bin/python -c 'from importlib.util import find_spec as f; print(f("skimage").origin)')
sh scripts/inference.sh smplest_x_demo "$(dirname "$skimage")/data/astronaut.png" \
    --detector movenet --keypoints built-in
echo "photograph: $PWD/demo/result_astronaut.png"
echo "video:      $PWD/demo/result_test_video.mp4"
echo "viewer:     $PWD/demo/result_test_video/viewer.html (open it in a browser)"
echo "characters: $PWD/demo/result_test_video/export/"
echo "parameters: $PWD/demo/result_test_video/person_001.npz ... (read with numpy.load)"
