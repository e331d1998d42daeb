"""Learn.

settings      `TrainSettings`: how a training goes, field by field; learning rate, averaging and growing images
step          `Train` and `TrainDetector`, the steps, and what they minimize: the net with its loss and added heads
trainer       the one flat loop that every training goes through, and what it carries from step to step
resume        what a training needs to go on exactly after a kill
progress      bar with rate and time left
distillation  `Distill`, the step: a student learns from teachers besides the labels; their logits, stored or live.
              `Assist`, the step: a second net learns what the student misses, and the two are summed
pretraining   where a net starts from: `Start`, `Unchanged`, `Pretrain` (other pictures), `Autoencode` (no labels)
"""
