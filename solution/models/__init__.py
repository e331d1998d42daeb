"""What we shrink.

shufflenet        ShuffleNet v1, written to be cut; stochastic depth
classifiers       any classifier of timm, torchvision or pytorchcv, by name
yolo, ssdlite     detectors as nets like any other: one tensor in, one out, and a loss
weights           a file's weights, put into a net; a limit for nets that a file describes
own_code, folders nets of the user's own code, and in folders of timm and Hugging Face
cifar_resnet      ResNets for pictures of 32 x 32
outputs           logits, feature maps, the classifier of any net
"""
