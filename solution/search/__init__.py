"""Search: Optuna over any settings of any stage of a recipe, judged on the dev split.

session      a search as settings; every process opens the same study from them
space        what is varied: address -> choices or range
storage      where trials are kept: a journal file that survives kills, or any database
study        a study, what must agree when it is opened again, and its sampler
locks        locks of the kernel, which the death of their holder opens
claims       which trial a worker takes next: one left behind, one that may go on, a new one
hyperband    after how many epochs weak trials rest
standings    who stands at which rung, and who may go on
cost         what a net will cost, before it is trained; what is hopeless is refused
worker       takes trials until none is left
ends         how a trial may end before its end
trainer      one trial: the stages that lead to After, resumed where they stopped
supervisor   starts workers, replaces dead ones, tells how far they are
outcome      the best trial as a recipe file, a table, plots
recipe_file  a recipe as readable Python
plots        history, front, importance
peers        nets that one would pick instead
"""
