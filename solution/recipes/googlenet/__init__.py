"""GoogLeNet on 100 classes: structured against unstructured pruning, static int8, and both."""
