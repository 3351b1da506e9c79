"""SMART of an ATA disk: the sectors that it tells of its health, which is always good.

Ref: ATA/ATAPI-6, 8.41 and annex; the attributes are those of QEMU's disks: what a guest reads is the same.
Self-tests are over at once, without an error.
"""

from libc.string cimport memset

cdef enum:
    ATTRIBUTES = 7

# id, flags, value, worst, six raw bytes, threshold
cdef u8 ROWS[ATTRIBUTES][11]
for _n, _row in enumerate((
    (0x01, 0x03, 0x64, 0x64, 0, 0, 0, 0, 0, 0, 0x06),               # read errors
    (0x03, 0x03, 0x64, 0x64, 0x10, 0, 0, 0, 0, 0, 0x00),            # spin-up time
    (0x04, 0x02, 0x64, 0x64, 0x64, 0, 0, 0, 0, 0, 0x14),            # starts and stops
    (0x05, 0x03, 0x64, 0x64, 0, 0, 0, 0, 0, 0, 0x24),               # sectors moved
    (0x09, 0x03, 0x64, 0x64, 0x01, 0, 0, 0, 0, 0, 0x00),            # hours with power
    (0x0C, 0x03, 0x64, 0x64, 0, 0, 0, 0, 0, 0, 0x00),               # power cycles
    (0xBE, 0x03, 0x45, 0x45, 0x1F, 0, 0x1F, 0x1F, 0, 0, 0x32),      # temperature of the air
)):
    for _k in range(11):
        ROWS[_n][_k] = _row[_k]


cdef void _sum(u8 *data) noexcept nogil:
    """The last byte makes the sum of all 0."""
    cdef u8 total = 0
    cdef u32 n
    for n in range(511):
        total += data[n]
    data[511] = <u8>(0 - total)


cdef void smart_values(Health *health, u8 *data) noexcept nogil:
    cdef u32 n, k
    memset(data, 0, 512)
    data[0] = 1
    for n in range(ATTRIBUTES):
        data[2 + 12 * n], data[3 + 12 * n] = ROWS[n][0], ROWS[n][1]
        for k in range(8):
            data[5 + 12 * n + k] = ROWS[n][2 + k]
    data[362] = 0x82 if health.saves else 0x02                      # off-line data is there
    data[364], data[365] = 0x20, 0x01                               # seconds that it takes
    data[367], data[368] = 0x19, 0x03                               # what it can
    data[370], data[372], data[373], data[374] = 0x01, 0x02, 0x36, 0x01
    _sum(data)


cdef void smart_thresholds(u8 *data) noexcept nogil:
    cdef u32 n
    memset(data, 0, 512)
    data[0] = 1
    for n in range(ATTRIBUTES):
        data[2 + 12 * n], data[3 + 12 * n] = ROWS[n][0], ROWS[n][10]
    _sum(data)


cdef void smart_errors(u8 *data) noexcept nogil:
    memset(data, 0, 512)
    data[0] = 1
    _sum(data)


cdef void smart_tests(Health *health, u8 *kinds, u8 *data) noexcept nogil:
    cdef u32 n
    memset(data, 0, 512)
    data[0] = 1
    for n in range(health.tests):
        data[2 + 24 * n] = kinds[n]
        data[4 + 24 * n], data[5 + 24 * n] = 0x34, 0x12             # hours
    data[508] = <u8>health.tests
    _sum(data)


cdef bint smart_test(Health *health, u8 *kinds, u8 kind) noexcept nogil:
    """A test has been made: 0 off-line data, 1 short, 2 extended. False: there is no such one."""
    if kind > 2:
        return False
    if health.tests == TESTS:
        health.tests = 0
    kinds[health.tests] = kind
    health.tests += 1
    return True
