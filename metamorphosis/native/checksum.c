#include "checksum.h"

#include <stdbool.h>

#define POLYNOMIAL 0xedb88320u /* reflected, as zlib's */
#define SLICES 8

/* Tables for eight bytes a step. Filled once, before the first CRC; constant after that. */

static uint32_t tables[SLICES][256];

static void fill_tables(void) {
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t crc = byte;
        for (int bit = 0; bit < 8; bit++)
            crc = (crc >> 1) ^ (crc & 1 ? POLYNOMIAL : 0);
        tables[0][byte] = crc;
    }
    for (int slice = 1; slice < SLICES; slice++)
        for (int byte = 0; byte < 256; byte++) {
            uint32_t before = tables[slice - 1][byte];
            tables[slice][byte] = (before >> 8) ^ tables[0][before & 0xff];
        }
}

static uint32_t little_endian(const uint8_t *data) {
    return (uint32_t)data[0] | (uint32_t)data[1] << 8 | (uint32_t)data[2] << 16 | (uint32_t)data[3] << 24;
}

/* Continue a CRC that is not inverted. */
static uint32_t continue_by_tables(uint32_t crc, const uint8_t *data, size_t length) {
    for (; length >= SLICES; length -= SLICES, data += SLICES) {
        uint32_t low = crc ^ little_endian(data);
        uint32_t high = little_endian(data + 4);
        crc = tables[7][low & 0xff] ^ tables[6][low >> 8 & 0xff] ^ tables[5][low >> 16 & 0xff] ^ tables[4][low >> 24] ^
              tables[3][high & 0xff] ^ tables[2][high >> 8 & 0xff] ^ tables[1][high >> 16 & 0xff] ^
              tables[0][high >> 24];
    }
    for (; length > 0; length--, data++)
        crc = (crc >> 8) ^ tables[0][(crc ^ *data) & 0xff];
    return crc;
}

static uint32_t crc32_by_tables(const uint8_t *data, size_t length) { return ~continue_by_tables(~0u, data, length); }

#if defined(__x86_64__)

#include <immintrin.h>

/*
 * Carry-less multiplication: 64 bytes a step are folded onto the next 64, then onto 16, which are reduced by Barrett's
 * method. The constants are powers of x modulo the polynomial (V. Gopal and others, Intel, 2009, "Fast CRC Computation
 * for Generic Polynomials Using PCLMULQDQ Instruction").
 */

#define FOLD_BYTES 64

__attribute__((target("pclmul,sse4.1"))) static __m128i fold(__m128i sum, __m128i by, __m128i next) {
    __m128i low = _mm_clmulepi64_si128(sum, by, 0x00);
    __m128i high = _mm_clmulepi64_si128(sum, by, 0x11);
    return _mm_xor_si128(_mm_xor_si128(low, high), next);
}

__attribute__((target("pclmul,sse4.1"))) static __m128i load(const uint8_t *data) {
    return _mm_loadu_si128((const __m128i *)(const void *)data);
}

/* Reduce 16 folded bytes to a CRC that is not inverted. */
__attribute__((target("pclmul,sse4.1"))) static uint32_t reduce(__m128i sum, __m128i by_16) {
    const __m128i mask = _mm_setr_epi32(~0, 0, ~0, 0);
    const __m128i by_4 = _mm_set_epi64x(0, 0x0163cd6124);
    const __m128i barrett = _mm_set_epi64x(0x01f7011641, 0x01db710641);
    sum = _mm_xor_si128(_mm_srli_si128(sum, 8), _mm_clmulepi64_si128(sum, by_16, 0x10));
    __m128i low = _mm_and_si128(sum, mask);
    sum = _mm_xor_si128(_mm_srli_si128(sum, 4), _mm_clmulepi64_si128(low, by_4, 0x00));
    __m128i quotient = _mm_clmulepi64_si128(_mm_and_si128(sum, mask), barrett, 0x10);
    quotient = _mm_clmulepi64_si128(_mm_and_si128(quotient, mask), barrett, 0x00);
    return (uint32_t)_mm_extract_epi32(_mm_xor_si128(sum, quotient), 1);
}

__attribute__((target("pclmul,sse4.1"))) static uint32_t crc32_by_multiplication(const uint8_t *data, size_t length) {
    if (length < FOLD_BYTES)
        return crc32_by_tables(data, length);
    const __m128i by_64 = _mm_set_epi64x(0x01c6e41596, 0x0154442bd4);
    const __m128i by_16 = _mm_set_epi64x(0x00ccaa009e, 0x01751997d0);
    __m128i first = _mm_xor_si128(load(data), _mm_cvtsi32_si128(-1));
    __m128i second = load(data + 16), third = load(data + 32), fourth = load(data + 48);
    data += FOLD_BYTES;
    length -= FOLD_BYTES;
    for (; length >= FOLD_BYTES; length -= FOLD_BYTES, data += FOLD_BYTES) {
        first = fold(first, by_64, load(data));
        second = fold(second, by_64, load(data + 16));
        third = fold(third, by_64, load(data + 32));
        fourth = fold(fourth, by_64, load(data + 48));
    }
    __m128i sum = fold(fold(fold(first, by_16, second), by_16, third), by_16, fourth);
    for (; length >= 16; length -= 16, data += 16)
        sum = fold(sum, by_16, load(data));
    return ~continue_by_tables(reduce(sum, by_16), data, length);
}

static bool can_multiply(void) {
    __builtin_cpu_init();
    return __builtin_cpu_supports("pclmul") && __builtin_cpu_supports("sse4.1");
}

#elif defined(__aarch64__) && defined(__linux__)

#include <arm_acle.h>
#include <asm/hwcap.h>
#include <string.h>
#include <sys/auxv.h>

__attribute__((target("+crc"))) static uint32_t crc32_by_instruction(const uint8_t *data, size_t length) {
    uint32_t crc = ~0u;
    for (; length >= 8; length -= 8, data += 8) {
        uint64_t word;
        memcpy(&word, data, sizeof word);
        crc = __crc32d(crc, word);
    }
    for (; length > 0; length--, data++)
        crc = __crc32b(crc, *data);
    return ~crc;
}

static bool has_instruction(void) { return (getauxval(AT_HWCAP) & HWCAP_CRC32) != 0; }

#endif

const struct checksum_way *checksum_ways(void) {
    static struct checksum_way ways[3];
    if (ways[0].crc32 != NULL)
        return ways;
    fill_tables();
    size_t count = 0;
#if defined(__x86_64__)
    if (can_multiply())
        ways[count++] = (struct checksum_way){"carry-less multiplication", crc32_by_multiplication};
#elif defined(__aarch64__) && defined(__linux__)
    if (has_instruction())
        ways[count++] = (struct checksum_way){"CRC instructions", crc32_by_instruction};
#endif
    ways[count] = (struct checksum_way){"tables", crc32_by_tables};
    return ways;
}
