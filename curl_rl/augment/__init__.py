"""Batched augmentations on the tensors' device, with random numbers from a generator passed by the caller.

Every image of a batch has its own random numbers. Nothing here makes the host wait for a GPU or loops over images,
except for copying windows on a CPU, where that is fastest.
"""

from curl_rl.augment.autoaugment import auto_augment
from curl_rl.augment.blur import gaussian_blur, random_gaussian_blur
from curl_rl.augment.color import (
    Jitter,
    adjust_brightness,
    adjust_contrast,
    adjust_hue,
    adjust_saturation,
    color_jitter,
    random_color_jitter,
    random_grayscale,
    random_solarize,
    solarize,
)
from curl_rl.augment.crops import center_crop, crop, random_crop, random_crops
from curl_rl.augment.pba import population_augment
from curl_rl.augment.randaugment import random_augment
from curl_rl.augment.resized_crop import Windows, random_resized_crop, random_windows, resize_windows

__all__ = [
    "Jitter",
    "Windows",
    "adjust_brightness",
    "adjust_contrast",
    "adjust_hue",
    "adjust_saturation",
    "auto_augment",
    "center_crop",
    "color_jitter",
    "crop",
    "gaussian_blur",
    "population_augment",
    "random_augment",
    "random_color_jitter",
    "random_crop",
    "random_crops",
    "random_gaussian_blur",
    "random_grayscale",
    "random_resized_crop",
    "random_solarize",
    "random_windows",
    "resize_windows",
    "solarize",
]
