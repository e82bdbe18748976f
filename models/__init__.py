"""The network: tensors in, tensors out.

smplest_x.py    the whole network: decoder, heads, and the optional lifter
vit.py          its encoder
posing.py       from head outputs to a posed body
losses.py       the published losses
supervision.py  what only training has: auxiliary heads and losses
initialise.py   weights to start from: random ones, pre-trained encoders
checkpoint.py   weights from files and back, under the published names
deployment.py   compiled networks, CUDA graphs, ONNX
"""
