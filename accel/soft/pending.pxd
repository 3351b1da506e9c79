# Words that other threads write too: Cpu.pending, and who sleeps.
from accel.soft.cpu cimport u32

cdef extern from *:
    """
    #ifndef VR_PENDING
    #define VR_PENDING
    #define vr_or32(p, v) __atomic_fetch_or((p), (v), __ATOMIC_SEQ_CST)
    #define vr_and32(p, v) __atomic_fetch_and((p), (v), __ATOMIC_SEQ_CST)
    #define vr_get32(p) __atomic_load_n((p), __ATOMIC_SEQ_CST)
    #define vr_set32(p, v) __atomic_store_n((p), (v), __ATOMIC_SEQ_CST)
    #endif
    """
    u32 vr_or32(u32 *, u32) nogil
    u32 vr_and32(u32 *, u32) nogil
    u32 vr_get32(u32 *) nogil
    int vr_get32i "vr_get32"(int *) nogil
    void vr_set32i "vr_set32"(int *, int) nogil
