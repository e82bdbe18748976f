"""The network: tensors in, tensors out.

smplest_x.py    the whole network
vit.py          its encoder
decoder.py      its decoder and heads
lifter.py       optional parts: keypoints on the feature map, and their lifting to 3D
posing.py       from head outputs to a posed body
losses.py       the published losses
supervision.py  what only training has: auxiliary heads and losses
initialise.py   a network to start from
checkpoint.py   weights from files and back, under the published names
vitpose.py      weights of pre-trained encoders
deployment.py   compiled networks, CUDA graphs, ONNX
"""
