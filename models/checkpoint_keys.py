"""The key table: names of published checkpoints on one side, of our modules on the other.

Rules apply in order to the beginning or the middle of a key; each is one-to-one, so that what is
saved carries the published names.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Final, TypeVar

Value = TypeVar("Value")

# What wrappers of networks (data parallel, torch.compile, FSDP, checkpointing) put into keys.
_WRAPPERS: Final = re.compile(
    r"^((module|_orig_mod)\.)+|(?<=\.)(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\."
)
# Older files -> the published form.
_OLD_PREFIXES: Final = (
    ("backbone.", "encoder."),
    ("body_rotation_net.", "body_regressor."),
    ("hand_rotation_net.", "hand_regressor."),
)
# Buffers of the body model, which are read from its own files.
_NOT_WEIGHTS: Final = ("smplx_layer.",)

# (published, ours). {i} is the index of a decoder layer.
_LAYER: Final = "decoder.transformer.transformer.layers.{i}."
KEY_TABLE: Final = (
    (_LAYER + "0.norm.", "decoder.layers.{i}.self_norm."),
    (_LAYER + "0.fn.to_out.0.", "decoder.layers.{i}.self_attention.to_out."),
    (_LAYER + "0.fn.", "decoder.layers.{i}.self_attention."),
    (_LAYER + "1.norm.", "decoder.layers.{i}.cross_norm."),
    (_LAYER + "1.fn.to_out.0.", "decoder.layers.{i}.cross_attention.to_out."),
    (_LAYER + "1.fn.", "decoder.layers.{i}.cross_attention."),
    (_LAYER + "2.norm.", "decoder.layers.{i}.feed_forward_norm."),
    (_LAYER + "2.fn.net.0.", "decoder.layers.{i}.feed_forward.0."),
    (_LAYER + "2.fn.net.3.", "decoder.layers.{i}.feed_forward.2."),
    ("decoder.transformer.pos_embedding", "decoder.pos_embedding"),
    ("decoder.transformer.to_token_embedding.", "decoder.to_token_embedding."),
    ("decoder.token_conv.", "decoder.token_projection."),
    ("decoder.dec_", "heads."),
)


def _translate(key: str, table: Iterable[tuple[str, str]]) -> str:
    for source, target in table:
        pattern = re.escape(source).replace(re.escape("{i}"), r"(?P<i>\d+)")
        match = re.match(pattern, key)
        if match:
            return target.format(**match.groupdict()) + key[match.end() :]
    return key


def from_published(state: Mapping[str, Value]) -> dict[str, Value]:
    """A published (or older) state dict under our names; buffers of the body model left out."""
    ours = {}
    for key, value in state.items():
        key = _WRAPPERS.sub("", key)
        for old, new in _OLD_PREFIXES:
            if key.startswith(old):
                key = new + key.removeprefix(old)
        if not key.startswith(_NOT_WEIGHTS):
            ours[_translate(key, KEY_TABLE)] = value
    return ours


def to_published(state: Mapping[str, Value]) -> dict[str, Value]:
    """Our state dict under the published names, without a wrapper's `module.`."""
    inverse = [(ours, published) for published, ours in KEY_TABLE]
    return {_translate(key, inverse): value for key, value in state.items()}
