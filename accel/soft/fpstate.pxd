# The host's floating-point registers as the guest's, inline: what the handlers of x87.pyx and sse.pyx share.
#
# XMM registers are always in c.fx. The x87 stack is in the host's while c.fp_live, else in c.fx; the control word's
# own place is c.fx, the host's has all exceptions masked. The host's MXCSR is the guest's during a slice, masked too;
# sticky flags gather there and are fetched when somebody looks.

from accel.soft.cpu cimport *
from accel.soft.stub cimport Stub

cdef extern from *:
    """
    #ifndef VR_FPSTATE
    #define VR_FPSTATE
    #if defined(__x86_64__)
    #include <string.h>
    static inline unsigned vr_get_mxcsr(void) { unsigned v; __asm__ volatile("stmxcsr %0" : "=m"(v)); return v; }
    static inline void vr_set_mxcsr(unsigned v) { v &= 0xFFFF; __asm__ volatile("ldmxcsr %0" : : "m"(v)); }
    static inline void vr_set_fcw(unsigned v) { unsigned short w = v | 0x3F; __asm__ volatile("fldcw %0" : : "m"(w)); }
    static inline unsigned vr_get_fsw(void) { unsigned short w; __asm__ volatile("fnstsw %0" : "=am"(w)); return w; }
    /* The x87 part of an FXSAVE image into the host's registers, with exceptions masked and none pending. */
    static inline void vr_fp_load(const unsigned char *fx)
    {
        unsigned char t[512] __attribute__((aligned(16)));
        unsigned m = vr_get_mxcsr();
        memcpy(t, fx, 160);
        memset(t + 6, 0, 18);
        t[0] |= 0x3F;
        t[2] &= 0x7F;
        t[3] &= 0x7F;
        memcpy(t + 24, &m, 4);
        memset(t + 160, 0, 256);
        __asm__ volatile("fxrstor64 %0" : : "m"(t) : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7",
                         "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
    }
    /* Back: status, tags and registers. The host's are left as they are. */
    static inline void vr_fp_save(unsigned char *fx)
    {
        unsigned char t[512] __attribute__((aligned(16)));
        __asm__ volatile("fxsave64 %0" : "=m"(t));
        if (t[2] & ~fx[0] & 0x3F) {
            t[2] |= 0x80;
            t[3] |= 0x80;
        }
        memcpy(fx + 2, t + 2, 3);
        memcpy(fx + 32, t + 32, 128);
    }
    static inline void vr_fp_clear(void) { __asm__ volatile("fninit"); }
    #else
    static inline unsigned vr_get_mxcsr(void) { return 0x1F80; }
    static inline void vr_set_mxcsr(unsigned v) { (void)v; }
    static inline void vr_set_fcw(unsigned v) { (void)v; }
    static inline unsigned vr_get_fsw(void) { return 0; }
    static inline void vr_fp_load(const unsigned char *fx) { (void)fx; }
    static inline void vr_fp_save(unsigned char *fx) { (void)fx; }
    static inline void vr_fp_clear(void) { }
    #endif
    #endif
    """
    u32 vr_get_mxcsr() nogil
    void vr_set_mxcsr(u32) nogil
    void vr_set_fcw(u32) nogil
    u32 vr_get_fsw() nogil
    void vr_fp_load(const u8 *) nogil
    void vr_fp_save(u8 *) nogil
    void vr_fp_clear() nogil

cdef enum:
    XMM0 = 160              # in the image
    YMM0 = 576              # the upper half
    PKRU = 2688             # rights of protection keys, 8 bytes of which 4 are
    MASKS = 0x1F80          # of MXCSR
    MISALIGNED = 0x20000    # AMD's MM: operands of computing instructions need not be aligned. The host does not see it

cdef inline u8 *xmm(Cpu *c, u32 n) noexcept nogil:
    return c.fx + XMM0 + n * 16

cdef inline u8 *ymm_high(Cpu *c, u32 n) noexcept nogil:
    return c.fx + YMM0 + n * 16

cdef inline u32 *pkru(Cpu *c) noexcept nogil:
    return <u32 *>(c.fx + PKRU)

cdef inline u16 *fcw(Cpu *c) noexcept nogil:
    return <u16 *>c.fx

cdef inline u16 *fsw(Cpu *c) noexcept nogil:
    return <u16 *>(c.fx + 2)

cdef inline u32 mxcsr_mask(Cpu *c) noexcept nogil:
    """The bits that there are."""
    return 0xFFFF | (c.features[3] >> 7 & 1) << 17

cdef inline u16 control_word(u16 value) noexcept nogil:
    """Without the bits that cannot be changed."""
    return <u16>((value & 0x1F3F) | 0x40)

cdef inline void adapt_status(Cpu *c) noexcept nogil:
    """ES and B, after control or status word have changed."""
    if fsw(c)[0] & ~<u32>fcw(c)[0] & 0x3F:
        fsw(c)[0] |= 0x8080
    else:
        fsw(c)[0] &= 0x7F7F

cdef inline void fetch_mxcsr(Cpu *c) noexcept nogil:
    """The sticky flags gathered by the host."""
    c.mxcsr |= vr_get_mxcsr() & 0x3F

cdef inline void put_mxcsr(Cpu *c, u32 value) noexcept nogil:
    c.mxcsr = value
    vr_set_mxcsr(value | MASKS)

cdef inline void settle(Cpu *c) noexcept nogil:
    """The x87 state into c.fx."""
    if c.fp_live:
        vr_fp_save(c.fx)
        vr_fp_clear()
        c.fp_live = False
