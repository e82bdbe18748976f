"""SMPLest-X Large."""

base = "config_smplest_x_h.py"
config = {
    "model": {
        "model_type": "vit_large",
        "encoder_pretrained_model_path": "./pretrained_models/vitpose_large.pth",
        "encoder_config": {
            "embed_dim": 1024,
            "depth": 24,
            "num_heads": 16,
            "drop_path_rate": 0.5,
        },
        "decoder_config": {"feat_dim": 1024},
    },
}
