"""Diffusion augmentation of rare digits: three classes have 5 pictures each, the other seven about 70.

Command:  python -m experiments.augment --config=configs/augment_few_shot.py
Data:     1,797 digits of 8 x 8 pixels, which come with scikit-learn; half of them are for testing, 10 splits
Method:   a dense prior (EDM, Karras et al. 2022, arXiv:2206.00364) of the seven frequent classes alone; then DA-Fusion
          in small (Trabucco et al. 2023, arXiv:2302.07944): embeddings of the rare classes learnt, SDEdit of their few
Hardware: 2 CPU cores, about a minute a seed
Expected: docs/augmentation.md
"""

from ml_collections import ConfigDict


def get_config(mode: str = "") -> ConfigDict:
    """`mode`: "" for the real run, "smoke" for a few seconds."""
    config = ConfigDict()
    config.name = "augment_few_shot"
    config.seed = 0

    config.data = "digits"
    config.data_folder = ""
    config.size = 8
    config.channels = 1
    config.per_class = 0
    config.shift = 1
    config.flip = False
    config.turn = False
    config.moved = False

    config.seeds = 10
    config.rare = 3
    config.names = ""
    config.shots = 5
    config.test = 0.5
    config.validation = 0.2
    config.count = 85

    config.model = ""
    config.architecture = "perceptron"
    config.net = {
        "width": 256,
        "blocks": 2,
        "embed": 64,
    }
    config.steps = 2000
    config.batch = 256
    config.learning_rate = 2e-3
    config.label_dropout = 0.15
    config.sigma_data = 0.6
    config.log_sigma_mean = -0.8
    config.log_sigma_std = 1.2
    config.embed = {
        "steps": 500,
        "batch": 64,
        "rate": 1e-2,
        "weights_rate": 1e-3,
    }

    config.methods = "SDEdit,words,DA-Fusion,Diff-II,Diff-Mix,SDEdit without words"
    config.sigmas = (0.5, 1.0, 2.0)
    config.beside = "none"
    config.guidance = 7.5
    config.sample_steps = 18
    config.sample_batch = 255
    config.confidence = (0.02, 1.0)
    config.copies = 0.0
    config.judges = ""
    for name in ("inception", "clip", "dino"):  # ONNX files of papers' networks, for distances
        config[name] = config[f"{name}_takes"] = ""
    if mode == "smoke":
        config.update(
            seeds=2,
            count=6,
            net={
                "width": 16,
                "blocks": 1,
                "embed": 8,
            },
            steps=20,
            batch=16,
            embed={
                "steps": 5,
                "batch": 4,
            },
            methods="SDEdit,Diff-Mix",
            sigmas=(0.5, 1.0),
            sample_steps=3,
            sample_batch=12,
            confidence=(0.0, 1.0),
        )
    elif mode:
        raise ValueError(f"mode is {mode!r}; configs/augment_few_shot.py knows '' and 'smoke'")
    return config
