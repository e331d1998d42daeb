"""Rendered demo data: a drawn 9-class recycling set, so that everything runs without a photo on the machine.

sheet       the canvas that one object is drawn on, its colors and its light
containers  bottles, cans, cups
solids      boxes, cells, trays
soft        bags, newspapers, shirts
classes     class name -> drawing
scene       background, clutter, pose, light, blur and noise around an object
build       the folder of JPEG files, how many of each class
"""

from solution.data.rendered.build import ensure_rendered

__all__ = ["ensure_rendered"]
