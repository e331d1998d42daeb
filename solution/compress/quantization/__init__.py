"""How weights and activations become few bits. `compress/quantize.py` holds the steps that use it.

schemes       float16 ... int2, binary: names, bits, levels
scales        the best step of each output channel's grid
codes         the finished forms: small integers and a scale; half precision
learned       the forms that train: learned step sizes (LSQ), signs and a mean
activations   inputs of layers on a grid
observers     what calibration images say about the range of a layer's inputs
layers        which layers can be quantized, and why the others cannot
graph         which layer feeds which, from torch.fx
folding       norms folded into the layer before them
equalize      channels of two neighboring layers brought to one range
correct       biases that make up for the mean error of a quantized layer
plan          what was decided: layer -> scheme, ranges, folded norms
sparing       layers better left in float, by measurement
mixed         a scheme for each layer, under a budget
"""
