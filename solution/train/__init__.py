"""Learn.

settings      `TrainSettings`: how a training goes, field by field
objective     what is minimized: the net with its loss, margin and auxiliary heads
step          `Train` and `TrainDetector`, the steps
trainer       the one flat loop that every training goes through, and what it carries from step to step
schedule      learning rate, averaging and growing images, as pure functions
resume        what a training needs to go on exactly after a kill
progress      bar with rate and time left
distillation  `Distill`, the step: a student learns from teachers besides the labels; their logits, stored or live
assist        `Assist`, the step: a second net learns what the student misses, and the two are summed
pretraining   where a net starts from: `Start`, `Unchanged`, `Pretrain` (other pictures), `Autoencode` (no labels)
"""
