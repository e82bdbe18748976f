"""A small network of the same design, trained on synthetic people: for demonstrations on CPUs."""

base = "config_smplest_x_h.py"
config = {
    "data": {
        "trainset_humandata": ("OpenPeople",),
        "data_strategy": "concat",
    },
    "train": {
        "end_epoch": 3,
        "train_batch_size": 8,
        "num_thread": 0,
        "lr": 2.5e-4,
        "min_lr": 1e-5,
        "warmup_iters": 300,
        "weight_decay": 0.02,
        "clip_grad_norm": 1.0,
        "ema_decay": 0.999,
        "print_iters": 25,
        "save_iters": 100,
        "remove_checkpoint": True,
        "validate_on": ("OpenPeople",),
        "smplx_pose_weight": 30.0,
        "smplx_orient_weight": 10.0,
        "keypoint_weight": 2.0,
        "token_joint_weight": 20.0,
        "first_glance_weight": 2.0,
    },
    "test": {"test_batch_size": 32},
    "model": {
        "model_type": "vit_demo",
        "encoder_pretrained_model_path": "./pretrained_models/vit_demo_keypoints.pth",
        "encoder_config": {
            "img_size": (128, 96),
            "patch_size": 16,
            "stem": "conv",
            "embed_dim": 128,
            "depth": 4,
            "num_heads": 4,
            "drop_path_rate": 0.0,
        },
        "decoder_config": {
            "feat_dim": 128,
            "dim_out": 128,
            "depth": 2,
            "num_heads": 4,
            "head_dim": 32,
        },
        "input_img_shape": (256, 192),
        "input_body_shape": (128, 96),
        "focal": (2500, 2500),
        "princpt": (96 / 2, 128 / 2),
    },
}
