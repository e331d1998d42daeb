"""Learn.

step        `Train`, the step: its settings, field by field
lesson      what is made small: the net with its loss, margin and auxiliary heads
detect      `TrainDetector`, the step: boxes, with the net's own loss
distill     `Distill`, the step: a student learns from teachers besides the labels
assist      `Assist`, the step: a second net learns what the student misses, and the two are summed
start       `Start`, the step: go on from a net that an earlier run has left
pretrain    `Pretrain`, the step: another set of pictures first
autoencode  `Autoencode`, the step: images redrawn first, without labels
teachers    their answers, stored once for every view, or live
loop        the one flat loop that every training goes through
training    what the loop carries from step to step
progress    bar with rate and time left
schedule    learning rate and averaging, as pure functions
sizes       small images first, the full size later
state       what a training needs to go on exactly after a kill
"""
