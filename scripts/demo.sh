#!/bin/sh
# The main job on bundled input, from nothing: installs, then runs inference on a photograph.
# No trained weights are bundled yet: an untrained network puts an average person into each box.
set -eu
cd "$(dirname "$0")/.."
sh scripts/install.sh
photograph=$(.venv/bin/python -c 'import importlib.util as u; print(u.find_spec("ultralytics").submodule_search_locations[0])')/assets/bus.jpg
[ -d pretrained_models/untrained ] || .venv/bin/python -m main.initialise configs/config_debug.py untrained
sh scripts/inference.sh untrained "$photograph" --boxes demo/bus_boxes.json --overlay mesh
echo "drawn:      $PWD/demo/result_bus.jpg"
echo "parameters: $PWD/demo/result_bus/person_001.npz ... (read with numpy.load)"
