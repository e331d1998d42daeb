"""Small nets of the kinds that users write, each of which the channel engine must cut right or refuse."""

from nets import residual, splits, students
from nets.catalogue import UserNet

GROUPS = (students, residual, splits)
NETS: dict[str, UserNet] = {net.name: net for group in GROUPS for net in group.NETS}
