"""Which channels of a net must be kept or cut together, and the cut that follows from a choice.

inputs      any example, any output, any wrapper
recorder    notes ATen calls while a forward runs on tensors without memory
tracing     model + example -> the list of those calls
ids         channel ids, ties between them, the axes they lie along (axes)
derived     weights that a forward computes from parameters
walk        sends ids through a pass, one rule per call
rules       what each call does to ids (layers, products, movement: those with weights, products, views; pairs: numbers
            of two channels at once)
components  ties -> groups of positions that stay or go together
costs       the MACs of a pass
operations  whether two passes compute the same
attributes  sizes that modules keep beside their tensors
analysis    all of the above for a model, or for its skeleton at other sizes
stored      numbers that modules store, found by what a forward asks for; atoms that shrink in one proportion
sizes       how many channels of each kind stay (grouped layers keep equal groups)
fitting     sizes that the real forward accepts
plan        the decision as a plain value that cuts
targets     a share, one threshold over all layers, or a limit on the cost -> numbers of channels
equality    proof of a cut (absent: a forward over what is left of the full net)
"""
