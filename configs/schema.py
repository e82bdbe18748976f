"""Every field of a config, typed, frozen and documented; an unknown key is an error.

Shapes are (height, width). The keys are those of the published config files.
"""

import difflib
import logging
import re
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)

from utils.errors import UserError

log = logging.getLogger(__name__)

Focal = Annotated[float, Field(gt=0, le=1e6)]
Pixels = Annotated[float, Field(ge=-1e6, le=1e6)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Shape2 = tuple[PositiveInt, PositiveInt]
Protocol = Literal["correct", "published"]
"""Whether to read, learn and measure as it should be, or with the errors of the published code."""

IGNORED_KEYS = {
    "data.use_cache": "the data cache is always on",
    "data.testset": "the command of a test names the datasets",
    "train.num_gpus": "the launcher decides",
    "train.hand_consist_weight": "no loss reads it",
    "inference.num_gpus": "--device decides",
    "inference.detection.model_type": "ultralytics reads the kind from the weights",
    "inference.detection.save": "detections are in the result files",
    "inference.detection.verbose": "--verbose decides",
    "model.encoder_config.num_classes": "a ViT without classes",
    "model.hand_3d_size": "only body_3d_size is used",
    "model.face_3d_size": "only body_3d_size is used",
    "log": "each run makes its own folders",
}
"""Keys of published config files that are ignored here, and why."""


class Section(BaseModel):
    """Base of all sections of a config: frozen, and unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class DatasetConfig(Section):
    """A dataset that is not in datasets/sources.csv, or changes of its row there."""

    train: tuple[str, ...] | None = None
    """HumanData files in data_dir/annot, or absolute paths; * stands for any text."""
    test: tuple[str, ...] | None = None
    images: str | None = None
    """Folder of images in data_dir/img, or an absolute path."""
    flat_hands: bool | None = None
    """Whether hand poses are relative to the flat or to the mean hand, unless the files say so."""
    like: str | None = None
    """A dataset of the table, such as "UBody", whose row gives all other values."""


class DataConfig(Section):
    data_dir: str = "./data"
    """Folder of the datasets. Relative paths in a config start from the project's folder, those of
    other options from the current folder."""
    trainset_humandata: tuple[str, ...] = ()
    datasets: dict[str, DatasetConfig] = Field(default={})
    """Dataset name -> its files, for your own datasets and for files with other names."""
    bbox_ratio: PositiveFloat = 1.25
    """Size of a crop relative to the box of the person."""
    no_aug: bool = False
    aug_strength: Fraction = 1.0
    """Scales the random rotations and changes of size; mirroring and colours are not affected."""
    data_strategy: Literal["concat", "balance", "weighted"] = "balance"
    total_data_len: PositiveInt | Literal["auto"] = "auto"
    """Samples per epoch for the mixture `balance`; auto: the number of rows."""
    train_sample_interval: dict[str, PositiveInt] = Field(default={})
    """Dataset name -> use every k-th row; published files have NAME_train_sample_interval = k."""
    test_sample_interval: dict[str, PositiveInt] = Field(default={})
    dataset_lengths: dict[str, PositiveInt] = Field(default={})
    """Dataset name -> samples per epoch, for the mixture `weighted`."""

    @model_validator(mode="before")
    @classmethod
    def _collect_intervals(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        collected: dict[str, Any] = {}
        for key, value in values.items():
            named = re.fullmatch(r"(.+)_(train_sample_interval|test_sample_interval)", str(key))
            if named:
                intervals = collected.setdefault(named[2], {})
                collected[named[2]] = {**intervals, named[1]: value}
            elif isinstance(value, dict):
                collected[key] = {**collected.get(key, {}), **value}
            else:
                collected[key] = value
        return collected


class TrainConfig(Section):
    # Length and batches. An iteration is one step of the optimizer, over
    # train_batch_size * accumulate_batches * processes samples.
    end_epoch: PositiveInt = 5
    train_batch_size: PositiveInt = 16
    """Samples per batch and process."""
    accumulate_batches: PositiveInt = 1
    """Batches per process and iteration, for large iterations with little memory."""
    num_thread: NonNegativeInt = 2
    """Loader workers per process; 0: the process itself loads."""
    lifting_samples: PositiveInt = 200_000
    """Synthetic samples per epoch of lifting pre-training; see main/pretrain.py."""
    lifting_poses: PositiveInt = 20_000
    """Poses drawn at the start of lifting; every sample mixes and varies some of them."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 2023
    """Seed of the order of samples, the augmentation and stochastic depth."""

    # Optimizer: Adam, a cosine from lr to min_lr over all iterations.
    lr: PositiveFloat = 1e-5
    min_lr: NonNegativeFloat = 1e-6
    warmup_iters: NonNegativeInt = 0
    """Iterations of linear increase to lr; networks without pre-training need some."""
    weight_decay: NonNegativeFloat = 0.0
    """Decoupled weight decay (AdamW), only for matrices."""
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Learning rate of each encoder block relative to the next one; for fine-tuning."""
    frozen_blocks: NonNegativeInt = 0
    """Number of first encoder blocks that are frozen, with the patch embedding."""
    clip_grad_norm: PositiveFloat | None = None
    """Largest norm of the gradients of an iteration; None, as published: no limit."""
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Average the weights over iterations (e.g. 0.9995); snapshots then contain the average."""

    # Speed and memory.
    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16: autocast of matrix products in the network; weights, heads and losses are float32."""
    parallel: Literal["ddp", "fsdp"] = "ddp"
    """fsdp shards weights and optimizer over the processes: less memory, more communication."""
    compile: bool = False
    """Use torch.compile, which takes minutes at the start and is faster then."""

    # Where training starts.
    continue_train: bool = False
    """Continue the run of this name whose state was written last."""
    start_over: bool = True
    """Load only the network from model.pretrained_model_path (fine-tuning); False: also load the
    optimizer and the epoch."""
    interpolate_pos_embed: bool = False
    """Allow encoder weights for another input size."""
    deepen_encoder: bool = False
    """Allow encoder weights with fewer blocks; the following blocks start as the identity."""

    # Snapshots and validation.
    save_epoch: PositiveInt = 1
    """Epochs between snapshots; the last epoch always has one."""
    save_iters: PositiveInt | None = None
    """Iterations between states within an epoch, for machines that may be interrupted."""
    remove_checkpoint: bool = False
    """Keep only the best and the newest `keep_last` snapshots."""
    keep_last: PositiveInt = 1
    time_limit_s: PositiveFloat | None = None
    """Duration of a run in seconds, including its start and interrupted parts. The learning rate
    falls to its end by then, and the run ends by writing a snapshot."""
    print_iters: PositiveInt = 100
    validate_on: tuple[str, ...] = ()
    """Datasets whose test split is evaluated during training."""
    validate_epochs: PositiveInt = 1
    validate_metric: str = "mpvpe_all"
    """The mean over these datasets decides which snapshot is the best."""

    # Tolerance of errors.
    bad_loss: Literal["stop", "skip"] = "stop"
    """What to do if a loss or gradients are not finite, or a loss is above `bad_loss_above`."""
    bad_loss_above: PositiveFloat | None = None
    unreadable_share: Fraction = 0.01
    """Share of samples whose image may be missing or damaged; other rows replace them."""

    # Losses; see models/losses.py.
    hand_loss: bool = False
    no_chain_hand_loss: bool = False
    smplx_kps_3d_weight: float = 1.0
    smplx_kps_2d_weight: float = 1.0
    smplx_pose_weight: float = 1.0
    smplx_shape_weight: float = 1.0
    smplx_orient_weight: float = 1.0
    smplx_hand_kps_3d_weight: float = 1.0
    hand_root_weight: float = 1.0
    keypoint_weight: NonNegativeFloat = 0.0
    """Weight of joints found on the feature map of the encoder; see models/supervision.py."""
    token_joint_weight: NonNegativeFloat = 0.0
    """Weight of the joint positions estimated by the pose tokens."""
    attention_weight: NonNegativeFloat = 0.0
    """Weight of supervising the attention of pose tokens by their joints."""


class DetectionConfig(Section):
    model_path: str = "./pretrained_models/yolov8x.pt"
    """Weights of the person detector; ultralytics can download files with known names."""
    conf: Fraction = 0.5
    """Lowest confidence of a detection."""
    iou_thr: Fraction = 0.5
    """IoU from which two detections are the same person."""


class InferenceConfig(Section):
    detection: DetectionConfig = DetectionConfig()
    refine: Literal["never", "images", "always"] = "never"
    """Which bodies are moved onto keypoints by default, without --refine or --no-refine."""
    error_scale: PositiveFloat = 1.0
    """Size of the network's errors relative to errors.npz beside its weights, or else to half of
    those of the demo network. With larger values, keypoints have more weight."""


class TestConfig(Section):
    test_batch_size: PositiveInt = 128


class EncoderConfig(Section):
    """A plain ViT."""

    task_tokens_num: Literal[80] = 80
    img_size: Shape2 = (256, 192)
    patch_size: Annotated[int, Field(ge=5)] = 16
    """Pixels; images are padded by 2 on each side, which must not form a patch."""
    stem: Literal["patch", "conv", "blazepose"] = "patch"
    """How pixels become image tokens: by one convolution (the published model), by a small
    convolutional network, with which small ViTs learn much faster, or by one that was trained on
    photographs of people and is frozen (`models.vit.BlazePoseStem`)."""
    embed_dim: PositiveInt
    depth: PositiveInt
    num_heads: PositiveInt
    ratio: Literal[1] = 1
    """Patches do not overlap, except by the published padding."""
    use_checkpoint: bool = False
    """Recompute activations in the backward pass: less memory, more time."""
    mlp_ratio: PositiveFloat = 4
    qkv_bias: bool = True
    drop_path_rate: Fraction = 0.0
    """Stochastic depth of the last block; rises linearly from 0."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.embed_dim % self.num_heads:
            raise ValueError(
                f"embed_dim {self.embed_dim} is not a multiple of num_heads {self.num_heads}"
            )
        if any(side % self.patch_size for side in self.img_size):
            raise ValueError(
                f"img_size {self.img_size} is not a multiple of patch_size {self.patch_size}"
            )
        halved = self.patch_size & (self.patch_size - 1) == 0 and self.embed_dim % 64 == 0
        if self.stem == "conv" and not halved:
            raise ValueError(
                "a convolutional stem needs a patch_size of 8, 16, 32, ... and an embed_dim that "
                f"is a multiple of 64, not {self.patch_size} and {self.embed_dim}"
            )
        if self.stem == "blazepose" and self.patch_size != 32:
            raise ValueError(f"the stem blazepose needs a patch_size of 32, not {self.patch_size}")
        return self


class DecoderConfig(Section):
    """Transformer over task tokens and image tokens, and the heads."""

    feat_dim: PositiveInt
    """Width; equals embed_dim of the encoder."""
    dim_out: PositiveInt = 512
    """Width of task tokens for the heads."""
    task_tokens_num: Literal[80] = 80
    depth: PositiveInt = 6
    num_heads: PositiveInt = 8
    head_dim: PositiveInt = 64


class LifterConfig(Section):
    """A network that lifts 2D joints to 3D; see models/smplest_x.py."""

    width: PositiveInt = 1024
    depth: PositiveInt = 3
    """Residual blocks of two layers each."""
    token_rank: PositiveInt = 16
    """Numbers from which a task token is composed."""


class ModelConfig(Section):
    model_type: str = "vit_huge"
    """Only a label; the sizes below define the model."""
    pretrained_model_path: str | None = None
    """Checkpoint to start training from."""
    human_model_path: str = "./human_models/human_model_files"
    """Folder of the licensed SMPL-X and SMPL files."""
    encoder_pretrained_model_path: str | None = "./pretrained_models/vitpose_huge.pth"
    encoder_config: EncoderConfig
    decoder_config: DecoderConfig
    lifter_config: LifterConfig | None = None
    """Lift joints that the encoder finds; published networks have no such part."""
    input_img_shape: Shape2 = (512, 384)
    """Shape of the crop in the published data pipeline; decides the aspect ratio of crops."""
    input_body_shape: Shape2 = (256, 192)
    """Shape of the network's input."""
    output_hm_shape: tuple[PositiveInt, PositiveInt, PositiveInt] = (16, 16, 12)
    """Depth, height and width of the grid in which 2D joints are supervised."""
    focal: tuple[Focal, Focal] = (5000, 5000)
    """Focal lengths (x, y) of the crop's camera, in pixels of the network's input."""
    princpt: tuple[Pixels, Pixels] = (96, 128)
    """Principal point (x, y), in pixels of the network's input."""
    body_3d_size: PositiveFloat = 2
    """Depth range of the body in metres."""
    camera_3d_size: PositiveFloat = 2.5
    """Size in metres that the crop covers at the middle of the range of the camera head."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.encoder_config.embed_dim != self.decoder_config.feat_dim:
            raise ValueError("decoder_config.feat_dim must equal encoder_config.embed_dim")
        if self.encoder_config.img_size != self.input_body_shape:
            raise ValueError("encoder_config.img_size must equal input_body_shape")
        return self


class Config(Section):
    data: DataConfig = DataConfig()
    train: TrainConfig = TrainConfig()
    inference: InferenceConfig = InferenceConfig()
    test: TestConfig = TestConfig()
    model: ModelConfig


def _known(values: dict[str, Any], ignored: list[str], prefix: str = "") -> dict[str, Any]:
    """The values without those of IGNORED_KEYS, whose names are added to `ignored`."""
    kept = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if name in IGNORED_KEYS:
            ignored.append(name)
        elif isinstance(value, dict):
            kept[key] = _known(value, ignored, f"{name}.")
        else:
            kept[key] = value
    return kept


def _section_of(location: tuple[int | str, ...]) -> type[BaseModel]:
    section: type[BaseModel] = Config
    for key in location:
        annotation = section.model_fields[str(key)].annotation
        candidates = [annotation, *get_args(annotation)]
        section = next(c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel))
    return section


def _explain(error: ValidationError) -> str:
    first = error.errors()[0]
    name = ".".join(map(str, first["loc"])) or "config"
    if first["type"] == "extra_forbidden":
        known = list(_section_of(first["loc"][:-1]).model_fields)
        near = difflib.get_close_matches(str(first["loc"][-1]), known, n=1, cutoff=0.5)
        hint = f"did you mean '{near[0]}'?" if near else f"known keys: {', '.join(known)}"
        return f"unknown key '{name}'; {hint}"
    if first["type"] == "missing":
        return f"'{name}' is missing"
    value = "" if isinstance(first["input"], dict) else f" = {first['input']!r:.80}"
    return f"'{name}'{value}: {first['msg'].removeprefix('Value error, ')}"


def validate(values: dict[str, Any], source: str) -> Config:
    """Validate a plain dict and make a `Config`; `source` is its name in errors.

    Raises:
        UserError: a key is unknown (the message suggests the nearest one) or a value is invalid.
    """
    ignored: list[str] = []
    known = _known(values, ignored)
    if ignored:
        log.debug("%s: ignored keys: %s", source, ", ".join(sorted(ignored)))
    try:
        return Config.model_validate(known)
    except ValidationError as error:
        raise UserError(f"{source}: {_explain(error)}") from None
