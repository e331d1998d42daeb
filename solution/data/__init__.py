"""What we see: a data set where it lies -> named items -> a uint8 cache -> augmented views.

readers           opens a folder, an archive, an array or a set of torchvision's as a `Source`
source            what every kind of data set looks like to the rest: classes and items
files, archives   the bytes of a folder, a .zip or a tar, read in place
layout, tables    which file belongs to which split and class: by its folders, or by a CSV table
file_source       the two together, as a `Source`
arrays            an .npz file as a `Source`; torchvision_sets: CIFAR-10, CIFAR-100 and SVHN
decode            one encoded picture -> RGB pixels
cache             decode once: all pictures at one size in a memory-mapped file
split             stratified, seeded splits
augment           random views of a picture, by albumentations
views             batches of such views, in an order that depends on seed and epoch alone
boxes, framing    pictures with boxes, read in place; put on a square; detection: batches of these
cards             what a data set is, in a few words
describe          counts, sizes, brightness, copies and unreadable files; pictures: the same as one picture
prepare           what was downloaded -> the expected layout; duplicates: which pictures are copies; borders: padding
rendered          the drawn demo data, for a machine without photos
"""
