"""What a setting is by the last part of its name, wherever it stands: seeds, counts, weights, ...

"scale.stylegan2.batch" is what "batch" is. A setting whose name says something else somewhere has
a `kind` in its row of `rtil.runs.keys`, which comes first. To add a setting, name it as its like
are named, or add its name here.
"""

from __future__ import annotations

from collections.abc import Mapping

from rtil.runs.kinds import (
    COUNT,
    COUNT_OR_NONE,
    FINITE,
    INDEX,
    NULL,
    POSITIVE,
    SEED,
    SHARE,
    SIDE,
    SWITCH,
    TEXT,
    WEIGHT,
    WIDTH,
    Kind,
    ListOf,
    Number,
    OneOf,
)

SEVERAL = COUNT | ListOf(COUNT, fewest=1)
RATES = WEIGHT | ListOf(WEIGHT, fewest=1)
SCORED = OneOf(("auto", True, False))  # a column of results
NAMES: Mapping[str, Kind] = {
    # Words. Which of them there are is checked by what takes them.
    **dict.fromkeys(("name", "arm", "source", "split", "selection", "target_range"), TEXT),
    **dict.fromkeys(("device", "ops", "precision", "optimiser", "lpips_net", "origin"), TEXT),
    **dict.fromkeys(("knob", "measures", "baseline", "_target_", "distance"), TEXT),
    **dict.fromkeys(("fade_in", "style_mixing_per", "image_range", "basis", "sampler"), TEXT),
    # Switches.
    **dict.fromkeys(("mirror", "tf32", "channels_last", "cuda_graphs", "normalise"), SWITCH),
    **dict.fromkeys(("mixture", "relative", "linear", "use", "average"), SWITCH),
    **dict.fromkeys(("back_projection", "pictures", "save_measurements", "per_image"), SWITCH),
    **dict.fromkeys(("allow_uncommitted", "check", "fid", "save_draws"), SWITCH),
    **dict.fromkeys(("path_mean_detached", "reuse_fakes"), SWITCH),
    **dict.fromkeys(("sphere", "feature_relative", "keep_rgb", "best_per_stage"), SWITCH),
    "fitted": SWITCH,
    **dict.fromkeys(("map_relative", "keep_observed"), SWITCH | NULL),
    # Counts.
    **dict.fromkeys(("seed", "split_seed", "search_seed"), SEED),
    "image_seed": SEED | NULL,
    **dict.fromkeys(("total_nimg", "keep_checkpoints", "path_batch", "first_convs"), COUNT),
    **dict.fromkeys(("num_images", "inversion_batch", "restarts", "trials"), COUNT),
    **dict.fromkeys(("finalists", "max_steps", "num_codes", "columns", "chains"), COUNT),
    **dict.fromkeys(("dims", "neighbours", "stage_steps", "joint_steps"), COUNT),
    "layers": Number(3, 64, whole=True),
    **dict.fromkeys(("n0", "n1", "nd"), WIDTH),
    **dict.fromkeys(("noise_maps", "noise_maps_per_stage", "geodesic_stages"), COUNT_OR_NONE),
    "maps": COUNT_OR_NONE | NULL,
    **dict.fromkeys(("stddev_group", "group", "final_images", "kernel_size"), COUNT | NULL),
    **dict.fromkeys(("num_train", "num_val", "num_test"), COUNT_OR_NONE | NULL),
    "init_d_nimg": COUNT_OR_NONE | NULL,
    **dict.fromkeys(("batch", "steps"), SEVERAL),
    "candidates": Number(1, 10**6, whole=True),
    "num_samples": Number(8, 10**9, whole=True),
    "bootstrap": Number(2, 10**6, whole=True),
    "fit_samples": Number(2, 10**9, whole=True),
    "threads": Number(1, 4096, whole=True) | NULL,
    "gallery": COUNT_OR_NONE,
    "host": TEXT,
    "port": Number(1, 65535, whole=True) | NULL,
    # Networks and families.
    "resolution": SIDE,
    "image_channels": OneOf((1, 3, None)),
    **dict.fromkeys(("z_dim", "width"), WIDTH),
    "cuts": ListOf(TEXT, fewest=1),
    "latent": NULL | ListOf(WIDTH, fewest=1),
    "latent_map": NULL | TEXT,
    "num_mapping": Number(1, 64, whole=True),
    "phase_nimg": OneOf(("grow", None)) | ListOf(COUNT),
    **dict.fromkeys(("depth", "block", "mix_block"), INDEX),
    "depths": ListOf(INDEX, fewest=1),
    "codes": ListOf(COUNT, fewest=1),
    "weights": NULL | ListOf(WEIGHT),
    **dict.fromkeys(("sigma", "sigma_start", "sigma_end", "least_noise"), POSITIVE),
    # Optimisers and losses.
    **dict.fromkeys(("lr", "mapping_lr", "code_lr", "rgb_gain", "tau"), POSITIVE),
    **dict.fromkeys(("lr_style", "lr_noise", "lr_feature", "lr_code", "lr_alpha"), RATES),
    "betas": ListOf(Number(0, 1), fewest=2, most=2),
    **dict.fromkeys(("ema_decay", "path_decay", "style_mixing", "rampup", "rampdown"), SHARE),
    **dict.fromkeys(("lpips_min_ratio", "zeta"), SHARE),
    **dict.fromkeys(("mse", "lpips", "drift", "l1", "l2", "geodesic", "weight"), WEIGHT),
    **dict.fromkeys(("lr_weights", "lr_deviation"), WEIGHT),
    "clamp": NULL | POSITIVE,
    "st_lpips": SCORED,
    **dict.fromkeys(("share", "tolerance"), Number(0, 1, above=True)),
    "map": OneOf(("posterior", None)) | WEIGHT,
    **dict.fromkeys(("image_std", "temperature"), NULL | POSITIVE),
    "map_sigma": NULL | POSITIVE | ListOf(POSITIVE),
    "residual": NULL | WEIGHT,
    "l1_radius": NULL | ListOf(POSITIVE),
    "alpha_init": OneOf(("dirichlet", "1/N", "1/C")) | FINITE,
    # Measurements, in units of the [0, 1] image. What a task takes its own `range` says.
    **dict.fromkeys(("noise_std", "ratio", "factor", "blur_std"), WEIGHT),
    # Data.
    "crop_scale": Number(1, 8),
    "cache_gb": Number(0, 10**6),
    **dict.fromkeys(("max_megapixels", "max_file_mb"), POSITIVE),
}
# What a command means by a name in its own way.
OF_COMMAND: Mapping[str, Mapping[str, Kind]] = {
    "app": {"baseline": TEXT | NULL},  # another generator; of a report it is an arm
    "theory": {
        "num_signals": Number(2, 10**6, whole=True),
        "num_train": ListOf(COUNT, fewest=1),
        "steps": COUNT,
        "ratios": ListOf(POSITIVE, fewest=1),
        "noise_std": WEIGHT | ListOf(WEIGHT, fewest=1),
    },
}
ENDINGS: Mapping[str, Kind] = {"_every": COUNT, "_weight": WEIGHT}


def kind_of_name(name: str) -> Kind | None:
    """The kind of all settings of this name, or None."""
    if name in NAMES:
        return NAMES[name]
    return next((kind for ending, kind in ENDINGS.items() if name.endswith(ending)), None)
