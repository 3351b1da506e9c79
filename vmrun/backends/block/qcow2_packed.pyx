# distutils: libraries = z zstd
"""Compressed clusters of qcow2: deflate without a header in a window of 4 KiB, or a zstd frame.

What deflate works with is some 300 KiB, which cost more to get from the host and give back than a cluster's worth of
work should: a few of them are kept for whoever comes next.
"""

from libc.errno cimport EIO, ENOMEM
from libc.stdlib cimport calloc, free
from libc.string cimport memset

cdef extern from "<zlib.h>" nogil:
    ctypedef struct z_stream:
        u8 *next_in
        unsigned int avail_in
        u8 *next_out
        unsigned int avail_out
    int inflateInit2(z_stream *, int)
    int zlib_inflate "inflate" (z_stream *, int)
    int inflateEnd(z_stream *)
    int deflateInit2(z_stream *, int, int, int, int, int)
    int deflate(z_stream *, int)
    int deflateReset(z_stream *)
    int deflateEnd(z_stream *)
    int Z_FINISH
    int Z_OK
    int Z_STREAM_END
    int Z_BUF_ERROR
    int Z_DEFLATED
    int Z_DEFAULT_STRATEGY
    int Z_DEFAULT_COMPRESSION

cdef extern from "<zstd.h>" nogil:
    ctypedef struct ZSTD_DCtx:
        pass
    ctypedef struct ZSTD_inBuffer:
        const void *src
        size_t size
        size_t pos
    ctypedef struct ZSTD_outBuffer:
        void *dst
        size_t size
        size_t pos
    ZSTD_DCtx *ZSTD_createDCtx()
    size_t ZSTD_freeDCtx(ZSTD_DCtx *)
    size_t ZSTD_decompressStream(ZSTD_DCtx *, ZSTD_outBuffer *, ZSTD_inBuffer *)
    unsigned ZSTD_isError(size_t)
    size_t ZSTD_compress(void *, size_t, const void *, size_t, int)

from accel.threads cimport pthread_mutex_init, pthread_mutex_lock, pthread_mutex_t, pthread_mutex_unlock

cdef enum:
    KEPT = 8                    # as many as threads that compress at a time, usually

cdef pthread_mutex_t mutex
cdef z_stream *idle[KEPT]
cdef int idle_count = 0
pthread_mutex_init(&mutex, NULL)


cdef z_stream *take_deflater() noexcept nogil:
    """One that is ready for a cluster; NULL: no memory."""
    global idle_count
    cdef z_stream *stream = NULL
    pthread_mutex_lock(&mutex)
    if idle_count:
        idle_count -= 1
        stream = idle[idle_count]
    pthread_mutex_unlock(&mutex)
    if stream != NULL:
        if deflateReset(stream) == Z_OK:
            return stream
        deflateEnd(stream)
        free(stream)
    stream = <z_stream *>calloc(1, sizeof(z_stream))
    if stream != NULL and deflateInit2(stream, Z_DEFAULT_COMPRESSION, Z_DEFLATED, -12, 9, Z_DEFAULT_STRATEGY) != Z_OK:
        free(stream)
        stream = NULL
    return stream


cdef void give_deflater(z_stream *stream) noexcept nogil:
    global idle_count
    pthread_mutex_lock(&mutex)
    if idle_count < KEPT:
        idle[idle_count] = stream
        idle_count += 1
        stream = NULL
    pthread_mutex_unlock(&mutex)
    if stream != NULL:
        deflateEnd(stream)
        free(stream)


cdef u64 pack_cluster(bint zstd, const u8 *data, u64 size, u8 *packed) noexcept nogil:
    """Bytes of the cluster compressed into `packed`, which has room for `size`; 0 when that makes it no smaller."""
    cdef z_stream *stream
    cdef size_t answer
    cdef u64 got = 0
    if zstd:
        answer = ZSTD_compress(packed, size - 1, data, size, 3)
        return 0 if ZSTD_isError(answer) else answer
    stream = take_deflater()
    if stream != NULL:
        stream.next_in, stream.avail_in = <u8 *>data, <unsigned int>size
        stream.next_out, stream.avail_out = packed, <unsigned int>size - 1
        if deflate(stream, Z_FINISH) == Z_STREAM_END:
            got = size - 1 - stream.avail_out
        give_deflater(stream)
    return got


cdef int unpack_cluster(bint zstd, const u8 *packed, u64 length, u8 *into, u64 size) noexcept nogil:
    """`size` bytes out of at most `length`; EIO when they are not a compressed cluster."""
    cdef z_stream stream
    cdef ZSTD_DCtx *context
    cdef ZSTD_inBuffer source
    cdef ZSTD_outBuffer target
    cdef size_t answer
    cdef int error = 0
    if zstd:
        context = ZSTD_createDCtx()
        if context == NULL:
            return ENOMEM
        source.src, source.size, source.pos = packed, length, 0
        target.dst, target.size, target.pos = into, size, 0
        while target.pos < target.size:
            answer = ZSTD_decompressStream(context, &target, &source)
            if ZSTD_isError(answer) or source.pos >= source.size and target.pos < target.size:
                error = EIO
                break
            if answer == 0 and target.pos < target.size:
                error = EIO
                break
        ZSTD_freeDCtx(context)
        return error
    memset(&stream, 0, sizeof(stream))
    if inflateInit2(&stream, -12) != Z_OK:
        return ENOMEM
    stream.next_in, stream.avail_in = <u8 *>packed, <unsigned int>length
    stream.next_out, stream.avail_out = into, <unsigned int>size
    answer = <size_t>zlib_inflate(&stream, Z_FINISH)
    if stream.avail_out or <int>answer not in (Z_STREAM_END, Z_BUF_ERROR, Z_OK):
        error = EIO
    inflateEnd(&stream)
    return error
