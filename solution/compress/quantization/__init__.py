"""How weights and activations become few bits. `compress/quantize.py` holds the steps that use it.

schemes     float16 ... int2, binary: names, bits, levels, the best step of each output channel's grid; ranges of inputs
forms       finished weights (integers and a scale, half precision), weights that train behind grids, inputs on grids
correction  cross-layer equalization before rounding, bias correction after it
plan        the decision: layer -> scheme, ranges, folded norms
mixed       a scheme for each layer under a budget; groups of layers that stay in float, by measurement
"""
