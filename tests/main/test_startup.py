"""What inference leaves alone until its network is ready: all that takes long to load."""

import pytest

from benchmarks.startup import start

LATE = ("torch._dynamo", "torch._inductor", "sympy", "torchvision", "ultralytics", "onnxruntime")
LATE += ("ray", "pandas", "matplotlib", "smplx", "huggingface_hub")


@pytest.fixture(scope="module")
def modules(untrained):
    return set(start(str(untrained)).modules)


def test_the_network_is_loaded_by_then(modules):
    assert {"torch", "cv2", "av", "main.pipeline.pipeline", "models.smplest_x"} <= modules


@pytest.mark.parametrize("package", LATE)
def test_what_a_network_needs_not_comes_later(modules, package):
    assert package not in modules
