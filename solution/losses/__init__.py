"""What training makes small: pure functions of tensors, each file its mathematics first, its settings after.

classification  cross-entropy, focal, soft macro F1, class weights; `Loss`, their blend; mixup and cutmix; `Mixing`
distillation    what a student takes from a teacher's logits and features; `DistillLoss`, their blend
margins         ArcFace, CosFace, sub-centers: a head for training that folds into a plain classifier; `Margin`
"""
