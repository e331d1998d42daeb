"""Search: Optuna over any settings of any stage of a recipe, judged on the dev split.

session      a search as settings, and its pool of workers: starts them, replaces dead ones, shows how far they are
space        what is varied: key -> choices or range
study        a study, where its trials are kept, how one may end, and the sampler
hyperband    after how many epochs weak trials rest, who stands at which rung, and who may go on
worker       takes trials until none is left: one left behind, one that may go on, a new one
trainer      one trial: what it will cost, then the stages that lead to After, resumed where they stopped
outcome      the best trial as a readable recipe file, a table, plots: history, front, importance
"""
