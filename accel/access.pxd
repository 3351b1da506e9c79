# One access of a processor to a region, as the region takes it: split, widened, masked. There is nothing to import.
cimport accel.errands as errands
from accel.api cimport ACTION_NONE, IoRegion, u8, u32, u64

cdef enum:
    # IoRegion.widest of a device of few ports that has the whole of a wider access which begins there, as on qemu-kvm's
    # boards (ANYHOW: at an odd place, too); of others such an access is the next port's too, as on an ISA bus
    ALONE = 0x100
    ANYHOW = 0x200


cdef inline u64 mask_of(u32 size) noexcept nogil:
    return <u64>-1 if size >= 8 else (<u64>1 << (8 * size)) - 1


cdef inline bint alone(u32 widest, u64 offset, u32 size) noexcept nogil:
    return widest >= ANYHOW or widest >= ALONE and not offset & (size - 1)


cdef inline bint region_takes(void *region, u32 size) noexcept nogil:
    return size <= (<IoRegion>region).max_access


cdef inline u64 region_load(IoRegion region, u64 offset, u32 size) noexcept nogil:
    """One access of the guest, split or widened to what the region takes."""
    cdef u32 part = size, i = 0
    cdef u64 value = 0
    region.accesses += 1
    errands.noted = <void *>region
    if part > region.max_access:
        part = region.max_access
    if part < region.min_access:
        part = region.min_access
    while i < size:
        value |= (region.read(offset + i, part) & mask_of(part)) << (8 * i)
        i += part
    return value & mask_of(size)


cdef inline u32 region_store(IoRegion region, u64 offset, u32 size, u64 value) noexcept nogil:
    cdef u32 part = size, i = 0, action = ACTION_NONE
    region.accesses += 1
    errands.noted = <void *>region
    if part > region.max_access:
        part = region.max_access
    while i < size:
        action |= region.write(offset + i, part, (value >> (8 * i)) & mask_of(part))
        i += part
    return action


cdef inline u32 region_load_string(IoRegion region, u64 offset, u32 size, u8 *data, u32 count) noexcept nogil:
    region.accesses += count
    errands.noted = <void *>region
    return region.read_string(offset, size, data, count)


cdef inline u32 region_store_string(IoRegion region, u64 offset, u32 size, u8 *data, u32 count) noexcept nogil:
    region.accesses += count
    errands.noted = <void *>region
    return region.write_string(offset, size, data, count)
