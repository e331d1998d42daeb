"""Rendered demo data: a drawn 9-class recycling set, so that everything runs without a photo on the machine.

sheet    the canvas that one object is drawn on, its colors and its light
objects  class name -> drawing
pairs    pictures of simple shapes with a mask each, for nets that tell pixels apart
build    background, clutter, pose, light, blur and noise around an object; the folder of JPEG files
"""

from solution.data.rendered.build import ensure_rendered

__all__ = ["ensure_rendered"]
"""The folder of JPEG files, made once and never half."""
