"""Every field of a config's section `train`."""

from typing import Annotated, Literal

from pydantic import Field

from configs.section import Count, Fraction, Positive, Section

NotNegative = Annotated[int, Field(ge=0)]


class TrainConfig(Section):
    # Length and batches. An iteration is one step of the optimizer, over
    # train_batch_size * accumulate_batches * processes samples.
    end_epoch: Count = 5
    train_batch_size: Count = 16
    """Samples that a process takes through the network at once."""
    accumulate_batches: Count = 1
    """Batches a process and iteration: large iterations on small memory."""
    num_thread: NotNegative = 2
    """Loader workers a process; 0 loads in the process itself."""
    lifting_samples: Count = 200_000
    """Samples an epoch of lifting pre-training, which makes its own; see main/pretrain.py."""
    seed: int = 2023
    """Of the mixture's order, the augmentation and the stochastic depth."""

    # Optimizer: Adam, a cosine from lr to min_lr over all iterations.
    lr: Positive = 1e-5
    min_lr: Annotated[float, Field(ge=0)] = 1e-6
    warmup_iters: NotNegative = 0
    """Iterations of linear rise to lr; networks without pre-training need some."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Decoupled (AdamW), of matrices only."""
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Each encoder block learns so much slower than the one behind it; for fine-tuning."""
    frozen_blocks: NotNegative = 0
    """So many first encoder blocks, and the embedding of patches, keep their weights."""
    clip_grad_norm: Positive | None = None
    """Longest gradient of an iteration; stays off where published numbers are wanted."""
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Average the weights over iterations (e.g. 0.9995); snapshots then hold the average."""

    # Speed and memory.
    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16: autocast of the network's products; weights, heads and losses stay float32."""
    parallel: Literal["ddp", "fsdp"] = "ddp"
    """fsdp shards weights and optimizer over the processes: less memory, more traffic."""
    compile: bool = False
    """torch.compile: minutes at the start, then faster on GPUs."""

    # Where training starts.
    continue_train: bool = False
    """Go on with the newest whole state of the run of this name."""
    start_over: bool = True
    """From model.pretrained_model_path only the network is taken (fine-tuning); false takes the
    optimizer and the epoch too."""
    interpolate_pos_embed: bool = False
    """Allow encoder weights of another input size."""
    deepen_encoder: bool = False
    """Allow encoder weights of fewer blocks; those behind them begin as the identity."""

    # What is kept and told.
    save_epoch: Count = 1
    """Epochs between snapshots; the last epoch always has one."""
    save_iters: Count | None = None
    """Iterations between states within an epoch, for machines that may vanish."""
    remove_checkpoint: bool = False
    """Remove all but the newest `keep_last` snapshots, and the best."""
    keep_last: Count = 1
    print_iters: Count = 100
    validate_on: tuple[str, ...] = ()
    """Datasets whose test split is evaluated during training."""
    validate_epochs: Count = 1
    validate_metric: str = "mpvpe_all"
    """Its mean over those datasets decides which snapshot is the best."""

    # What is borne.
    bad_loss: Literal["stop", "skip"] = "stop"
    """At a loss that is no finite number, or above `bad_loss_above`."""
    bad_loss_above: Positive | None = None
    unreadable_share: Fraction = 0.01
    """Share of samples whose image may be missing or damaged; another row takes their place."""

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
    hand_consist_weight: float = 1.0
    keypoint_weight: Annotated[float, Field(ge=0)] = 0.0
    """Of finding every joint on the encoder's feature map; see models/auxiliary.py."""
    token_joint_weight: Annotated[float, Field(ge=0)] = 0.0
    """Of every pose token telling where its joint is."""
    first_glance_weight: Annotated[float, Field(ge=0)] = 0.0
    """Of every pose token's attention going to its joint; see models/pointing.py."""
