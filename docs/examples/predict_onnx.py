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
    way = Image.Resampling[about.get("interpolation", "area").upper().replace("AREA", "HAMMING")]
    if about.get("crop"):  # the shorter side first, then the square in the middle
        photo = ImageOps.fit(photo, [min(photo.size)] * 2)
        edge = (1 - about["crop"]) / 2 * min(photo.size)
        photo = photo.resize([about["size"]] * 2, way, box=(edge, edge, photo.width - edge, photo.height - edge))
    photo = photo.resize([about["size"]] * 2, way)
    photo = photo.convert("L") if len(about["mean"]) == 1 else photo
    pixels = (np.atleast_3d(photo).astype(np.float32) / 255 - np.float32(about["mean"])) / np.float32(about["std"])
    logits = session.run(None, {"images": pixels.transpose(2, 0, 1)[None]})[0][0]
    shares = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    names = about["classes"] or [f"class {index}" for index in range(len(shares))]
    print(path, names[shares.argmax()], f"{shares.max():.4f}")
