"""SMPLest-X Small."""

base = "config_smplest_x_h.py"
config = {
    "model": {
        "model_type": "vit_small",
        "encoder_pretrained_model_path": "./pretrained_models/vitpose_small.pth",
        "encoder_config": {
            "embed_dim": 384,
            "depth": 12,
            "num_heads": 12,
            "drop_path_rate": 0.1,
        },
        "decoder_config": {"feat_dim": 384},
    },
}
