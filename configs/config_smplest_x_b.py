"""SMPLest-X Base."""

base = "config_smplest_x_h.py"
config = {
    "model": {
        "model_type": "vit_base",
        "encoder_pretrained_model_path": "./pretrained_models/vitpose_base.pth",
        "encoder_config": {
            "embed_dim": 768,
            "depth": 12,
            "num_heads": 12,
            "drop_path_rate": 0.3,
        },
        "decoder_config": {"feat_dim": 768},
    },
}
