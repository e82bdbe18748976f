"""The network: tensors in, tensors out.

smplest_x.py    the whole network: decoder, heads, the optional lifter, and the posed body
vit.py          its encoder
losses.py       the published losses
supervision.py  the networks as training has them, with auxiliary heads and their losses
initialise.py   weights to start from: random ones, pre-trained encoders
checkpoint.py   loading and saving weights, under the published names
deployment.py   compiled networks, CUDA graphs, ONNX
"""
