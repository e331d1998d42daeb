"""The competition: photos of waste in nine classes, as few multiply-accumulates and as high a macro F1 as possible."""
