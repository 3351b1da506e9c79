from accel.api cimport u64
from vmrun.backends.block.qcow2 cimport Qcow2Node

cdef u64 place(Qcow2Node node, u64 size) except? 0
cdef forget(Qcow2Node node, u64 offset, u64 size)
cdef flush_all(Qcow2Node node)
cdef write_snapshots(Qcow2Node node, list snapshots, bint kept=*)
