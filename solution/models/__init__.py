"""What we shrink.

shufflenet        ShuffleNet v1, written to be cut
classifiers       any classifier of timm, torchvision or pytorchcv, by name
detectors         nets of ultralytics, by name
yolo, ssdlite     detectors as nets like any other: one tensor in, one out, and a loss
weights           a file's weights, put into a net
cifar_resnet      ResNets for pictures of 32 x 32
bounded           a limit for nets that a file describes
taps              feature maps of any net, its classifier
stochastic_depth  residual branches left out at random while training
"""
