"""Loops over pixels of four bytes that see sixteen bytes or more at a time: every x86-64 processor has SSE2."""

from accel.api cimport u8, u32, u64

cdef extern from *:
    """
    #ifndef VMRUN_PIXELS
    #define VMRUN_PIXELS
    #include <stdint.h>
    #include <string.h>
    #include <immintrin.h>

    static inline __m128i pixels_load(const uint32_t *at) { return _mm_loadu_si128((const __m128i *)at); }

    static inline size_t pixels_run(const uint32_t *row, size_t count)
    {
        size_t n = 1;
        if (count < 2 || row[1] != row[0])
            return 1;
        const __m128i same = _mm_set1_epi32((int)row[0]);
        for (; n + 8 <= count; n += 8) {
            __m128i low = _mm_cmpeq_epi32(pixels_load(row + n), same);
            __m128i high = _mm_cmpeq_epi32(pixels_load(row + n + 4), same);
            unsigned found = (unsigned)_mm_movemask_ps(_mm_castsi128_ps(low))
                | (unsigned)_mm_movemask_ps(_mm_castsi128_ps(high)) << 4;
            if (found != 0xff)
                return n + (size_t)__builtin_ctz(~found);
        }
        while (n < count && row[n] == row[0])
            n++;
        return n;
    }

    static inline int pixels_replace(uint32_t *to, const uint32_t *from, size_t count)
    {
        size_t n = 0;
        __m128i differ = _mm_setzero_si128();
        for (; n + 4 <= count; n += 4)
            differ = _mm_or_si128(differ, _mm_xor_si128(pixels_load(to + n), pixels_load(from + n)));
        int changed = _mm_movemask_epi8(_mm_cmpeq_epi8(differ, _mm_setzero_si128())) != 0xffff;
        for (; n < count && !changed; n++)
            changed = to[n] != from[n];
        if (changed)
            memcpy(to, from, count * 4);
        return changed;
    }

    static inline void pixels_clear_high(uint32_t *to, const uint32_t *from, size_t count)
    {
        const __m128i low = _mm_set1_epi32(0xffffff);
        size_t n = 0;
        for (; n + 4 <= count; n += 4)
            _mm_storeu_si128((__m128i *)(to + n), _mm_and_si128(pixels_load(from + n), low));
        for (; n < count; n++)
            to[n] = from[n] & 0xffffff;
    }

    static inline int pixels_replace_low(uint32_t *to, const uint32_t *from, size_t count)
    {
        const __m128i low = _mm_set1_epi32(0xffffff);
        size_t n = 0;
        __m128i differ = _mm_setzero_si128();
        for (; n + 4 <= count; n += 4)
            differ = _mm_or_si128(differ, _mm_xor_si128(pixels_load(to + n), _mm_and_si128(pixels_load(from + n), low)));
        int changed = _mm_movemask_epi8(_mm_cmpeq_epi8(differ, _mm_setzero_si128())) != 0xffff;
        for (; n < count && !changed; n++)
            changed = to[n] != (from[n] & 0xffffff);
        if (changed)
            pixels_clear_high(to, from, count);
        return changed;
    }

    static inline uint64_t pixels_number(const uint32_t *row, size_t count)
    {
        /* two times two sums: each pair of pixels is multiplied, one with the other, under a key of its place */
        const __m128i step = _mm_set_epi32(0x6c62272e, 0x7e3779b9, 0x5bd1e995, 0x3c6ef372);
        __m128i key = _mm_set_epi32(0x165667b1, (int)0x9e3779b9, 0x27d4eb2f, (int)0xc2b2ae3d), sums[2] = {step, key};
        uint64_t parts[4], number = count;
        for (; count >= 8; count -= 8, row += 8)
            for (int n = 0; n < 2; n++, key = _mm_add_epi32(key, step)) {
                __m128i pixels = pixels_load(row + 4 * n), hidden = _mm_xor_si128(pixels, key);
                __m128i product = _mm_mul_epu32(hidden, _mm_srli_epi64(hidden, 32));
                sums[n] = _mm_add_epi64(sums[n], _mm_add_epi64(product, _mm_shuffle_epi32(pixels, 0x4e)));
            }
        for (; count; count--, row++)
            number = (number ^ *row) * 0xc4ceb9fe1a85ec53u, number ^= number >> 32;
        memcpy(parts, sums, 32);
        for (int n = 0; n < 4; n++)
            number = (number ^ parts[n]) * 0xff51afd7ed558ccdu, number ^= number >> 29;
        return number * 0xbf58476d1ce4e5b9u;
    }

    /* Four pixels by one shuffle; each store reaches four bytes too far, into what comes next. Returns how many. */
    __attribute__((target("ssse3")))
    static inline size_t pixels_pack_rgb_ssse3(uint8_t *to, const uint32_t *from, size_t count)
    {
        const __m128i order = _mm_setr_epi8(2, 1, 0, 6, 5, 4, 10, 9, 8, 14, 13, 12, -1, -1, -1, -1);
        size_t done = 0;
        for (; done + 6 <= count; done += 4, from += 4, to += 12)
            _mm_storeu_si128((__m128i *)to, _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)from), order));
        return done;
    }
    /* 0x00RRGGBB to the bytes R, G, B; four pixels are three words */
    static inline void pixels_pack_rgb(uint8_t *to, const uint32_t *from, size_t count)
    {
        size_t done = __builtin_cpu_supports("ssse3") ? pixels_pack_rgb_ssse3(to, from, count) : 0;
        from += done, to += 3 * done, count -= done;
        for (; count >= 4; count -= 4, from += 4, to += 12) {
            uint32_t a = __builtin_bswap32(from[0]) >> 8, b = __builtin_bswap32(from[1]) >> 8;
            uint32_t c = __builtin_bswap32(from[2]) >> 8, d = __builtin_bswap32(from[3]) >> 8;
            uint32_t words[3] = {a | b << 24, b >> 8 | c << 16, c >> 16 | d << 8};
            memcpy(to, words, 12);
        }
        for (; count; count--, from++, to += 3) {
            to[0] = (uint8_t)(*from >> 16);
            to[1] = (uint8_t)(*from >> 8);
            to[2] = (uint8_t)*from;
        }
    }
    #endif
    """
    # how many from `row` on are the same as its first: 1 to `count`
    size_t pixels_run(const u32 *row, size_t count) noexcept nogil
    # `source` over `to`; whether they were different
    bint pixels_replace(u32 *to, const u32 *source, size_t count) noexcept nogil
    # the same of pixels whose highest byte says nothing
    bint pixels_replace_low(u32 *to, const u32 *source, size_t count) noexcept nogil
    # to 0x00RRGGBB from pixels whose highest byte says nothing
    void pixels_clear_high(u32 *to, const u32 *source, size_t count) noexcept nogil
    # 64 bits that two different rows have in common by chance alone
    u64 pixels_number(const u32 *row, size_t count) noexcept nogil
    # 0x00RRGGBB to the bytes red, green, blue
    void pixels_pack_rgb(u8 *to, const u32 *source, size_t count) noexcept nogil
