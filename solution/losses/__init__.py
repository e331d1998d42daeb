"""What training makes small: pure functions of tensors, each file its mathematics first, its settings after.

classification  cross-entropy, focal, soft macro F1, class weights; targets are labels or probabilities
objective       `Loss`, their blend by weights
distillation    what a student takes from a teacher's logits and features; `Kd`, their blend
mixing          mixup and cutmix of a batch; `Mixing`
margins         ArcFace, CosFace, sub-centers: a head for training that folds into a plain classifier; `Margin`
"""
