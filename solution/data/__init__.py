"""What we see: a data set where it lies -> named items -> a uint8 cache -> augmented views -> batches.

The way of a picture from its path to a batch:
readers   a folder, an archive, an array or a set of torchvision's, opened as a `Source` of items
decode    one encoded picture -> RGB pixels; a split, decoded once into a memory-mapped file
views     random views of these, by albumentations, batched in an order that depends on seed and epoch alone
loaders   a named data set -> train, dev, val and calibration loaders

What these read with:
source    what every kind of data set looks like to the rest: classes, items, `DatasetInfo`; the files of a folder
archives  the files of a .zip or a tar, read in place
splits    what train, dev, val and test are for: by folders, by a CSV table, by a stratified, seeded draw
arrays    an .npz file as a `Source`; CIFAR-10, CIFAR-100 and SVHN

Besides:
detection pictures with boxes, read in place, and batches of these
describe  counts, sizes, brightness, copies and unreadable files, in figures and as a picture
prepare   what was downloaded -> the expected layout
rendered  the drawn demo data, for a machine without photos
"""
