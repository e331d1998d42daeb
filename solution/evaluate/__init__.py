"""JUDGE: what a net costs, whether its cost can be trusted, how well it answers, and its score.

cost        MACs in the competition's convention and at the dispatcher, parameters, sparsity, bytes
audit       compares both counts module by module and refuses a net that hides work
classify    macro F1, accuracy and confusion of any callable on a batch
detect      precision, recall and mAP of any callable on a batch
predict     probabilities for photos without labels
speed       latency, throughput, memory and loading of any runtimes, in turns
score       the competition's score as a small value

hooks, dispatch, running, and the audit's tape, charges, operations and ledger, are what cost and audit are made of.
"""
