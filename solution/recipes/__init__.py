"""Recipes of the reference systems, each with its published figures and a report of its own.

waste        the competition: ShuffleNet on photos of waste, taught, pruned, in four bits
detector     a detector in every form: YOLOv8n, and torchvision's SSDLite without the extra
googlenet    structured against unstructured pruning of a GoogLeNet, and int8
four_models  a family of cells: pruning, 16 to 1 bit and distillation of four nets on two data sets
bits         nets in ever fewer bits, as `benchmarks/bits.py` runs them
catalogue    all of them by name, and recipes of one's own from any Python file
"""
