"""Featherweight: image models made small without losing what they know.

data        photos in class folders, an archive, a table or an array -> uint8 cache -> batches
models      ShuffleNet written to be cut, and classifiers by name
train       one flat loop that resumes exactly
compress    one method a file: decide (a plan that prints and survives JSON), then cut
evaluate    MACs, audit, macro F1, the competition score
checkpoint  weights + how to build the net, in one file that is never unpickled
pipeline    a recipe -> one row per step -> the table
"""
