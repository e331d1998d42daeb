"""What we shrink.

shufflenet   ShuffleNet v1, written to be cut
classifiers  any classifier of timm, torchvision or pytorchcv, by name
taps         feature maps of any net, its classifier
"""
