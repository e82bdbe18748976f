"""A tiny network for tests and experiments on a CPU."""

base = "config_smplest_x_h.py"
config = {
    "train": {"end_epoch": 1, "train_batch_size": 2, "num_thread": 0},
    "model": {
        "model_type": "vit_debug",
        "encoder_pretrained_model_path": None,
        "encoder_config": {
            "embed_dim": 32,
            "depth": 2,
            "num_heads": 2,
            "drop_path_rate": 0.0,
        },
        "decoder_config": {"feat_dim": 32, "dim_out": 16, "depth": 2, "num_heads": 2},
    },
}
