"""Classify photos without this project: python predict_onnx.py after.onnx photo.jpg ..."""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

session = onnxruntime.InferenceSession(sys.argv[1])
about = json.loads(session.get_modelmeta().custom_metadata_map["featherweight"])
for path in sys.argv[2:]:
    photo = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
    photo = photo.resize([about["size"]] * 2, Image.Resampling.HAMMING)
    pixels = (np.asarray(photo, np.float32) / 255 - np.float32(about["mean"])) / np.float32(about["std"])
    logits = session.run(None, {"images": pixels.transpose(2, 0, 1)[None]})[0][0]
    shares = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    print(path, about["classes"][shares.argmax()], f"{shares.max():.4f}")
