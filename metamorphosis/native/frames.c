#include "frames.h"

#include <string.h>

#define NUMBERS 5     /* of the line of a frame: length, flag, id, checksum, opaque */
#define MAX_DIGITS 18 /* of a number of an answer that always fits an int64 */

/* Frames */

/* The numbers of the line of a frame, in their order. */
static void numbers_of(int64_t numbers[NUMBERS], struct span header, struct span body, int64_t opaque) {
    numbers[0] = (int64_t)body.length;
    numbers[1] = (int32_t)big_endian(header.start + 16);
    numbers[2] = (int64_t)((uint64_t)big_endian(header.start + 8) << 32 | big_endian(header.start + 12));
    numbers[3] = (int64_t)big_endian(header.start + 4);
    numbers[4] = opaque;
}

static size_t decimal_length(int64_t number) {
    uint64_t rest = number < 0 ? 0 - (uint64_t)number : (uint64_t)number;
    size_t length = number < 0 ? 2 : 1;
    for (; rest >= 10; rest /= 10)
        length++;
    return length;
}

int64_t next_opaque(int64_t opaque, int64_t opaques) { return opaque + 1 == opaques ? 0 : opaque + 1; }

size_t frame_length(size_t head, struct span header, struct span body, int64_t opaque) {
    int64_t numbers[NUMBERS];
    numbers_of(numbers, header, body, opaque);
    size_t length = head + NUMBERS - 1 + 2 + body.length;
    for (size_t each = 0; each < NUMBERS; each++)
        length += decimal_length(numbers[each]);
    return length;
}

uint8_t *write_frame(uint8_t *to, struct span head, struct span header, struct span body, int64_t opaque) {
    int64_t numbers[NUMBERS];
    numbers_of(numbers, header, body, opaque);
    memcpy(to, head.start, head.length);
    to += head.length;
    for (size_t each = 0; each < NUMBERS; each++) {
        to = write_number(to, numbers[each]);
        *to++ = each + 1 < NUMBERS ? ' ' : '\r';
    }
    *to++ = '\n';
    memcpy(to, body.start, body.length);
    return to + body.length;
}

bool record_in(struct span run, size_t at, struct span *header, struct span *body) {
    size_t left = run.length - at;
    if (left < RECORD_HEADER_BYTES)
        return false;
    *header = (struct span){run.start + at, RECORD_HEADER_BYTES};
    *body = (struct span){header->start + RECORD_HEADER_BYTES, (size_t)big_endian(header->start)};
    return body->length <= left - RECORD_HEADER_BYTES;
}

size_t measure_run(struct span run, size_t count, size_t head, int64_t opaque, int64_t opaques) {
    struct span header, body;
    size_t at = 0, total = 0;
    for (; count > 0 && record_in(run, at, &header, &body); count--) {
        total += frame_length(head, header, body, opaque);
        opaque = next_opaque(opaque, opaques);
        at += RECORD_HEADER_BYTES + body.length;
    }
    return count == 0 && at == run.length ? total : 0;
}

size_t most_bytes(struct span run, size_t count, size_t head) {
    return run.length + count * (head + NUMBERS * (MAX_INT64_CHARACTERS + 1) + 1);
}

uint8_t *write_run(uint8_t *to, struct span head, struct span run, int64_t opaque, int64_t opaques) {
    struct span header, body;
    for (size_t at = 0; record_in(run, at, &header, &body); at += RECORD_HEADER_BYTES + body.length) {
        to = write_frame(to, head, header, body, opaque);
        opaque = next_opaque(opaque, opaques);
    }
    return to;
}

/* Answers */

/* Step over the expected text. */
static enum reading expect(const uint8_t **at, const uint8_t *end, const char *text) {
    for (; *text != '\0'; text++, (*at)++) {
        if (*at == end)
            return PARTIAL;
        if (**at != (uint8_t)*text)
            return OTHER;
    }
    return WHOLE;
}

/* Read a decimal number and step over it; PARTIAL if the bytes end with it. */
static enum reading number_at(const uint8_t **at, const uint8_t *end, int64_t *number) {
    bool negative = *at < end && **at == '-';
    int64_t value = 0;
    size_t digits = 0;
    *at += negative;
    for (; *at < end && **at >= '0' && **at <= '9'; (*at)++, digits++) {
        if (digits == MAX_DIGITS + 1)
            return OTHER;
        if (digits < MAX_DIGITS)
            value = value * 10 + (**at - '0');
        else if (value > (INT64_MAX - 9) / 10)
            return OTHER;
        else
            value = value * 10 + (**at - '0');
    }
    *number = negative ? -value : value;
    if (*at == end)
        return PARTIAL;
    return digits > 0 ? WHOLE : OTHER;
}

/* Read the body `<id> <partition> <offset>`, which must end at `end`. */
static bool body_at(const uint8_t *at, const uint8_t *end, int64_t *offset) {
    int64_t ignored;
    return number_at(&at, end, &ignored) == WHOLE && expect(&at, end, " ") == WHOLE &&
           number_at(&at, end, &ignored) == WHOLE && expect(&at, end, " ") == WHOLE && at < end && *at != '-' &&
           number_at(&at, end, offset) == PARTIAL && at == end;
}

enum reading answer_at(const uint8_t **at, const uint8_t *end, int64_t *opaque, int64_t *offset) {
    int64_t length;
    enum reading read = expect(at, end, "result 200 ");
    if (read == WHOLE)
        read = number_at(at, end, &length);
    if (read == WHOLE)
        read = expect(at, end, " ");
    if (read == WHOLE)
        read = number_at(at, end, opaque);
    if (read == WHOLE)
        read = expect(at, end, "\r\n");
    if (read != WHOLE)
        return read;
    if (length < 5 || length > 64 || *opaque < 0)
        return OTHER;
    if (length > end - *at)
        return PARTIAL;
    if (!body_at(*at, *at + length, offset))
        return OTHER;
    *at += length;
    return WHOLE;
}

size_t step_over(struct expected *next, int64_t opaques, const uint8_t **past, const uint8_t *end, enum reading *last) {
    struct span header, body;
    size_t count = 0;
    *last = WHOLE;
    for (; *past < end && record_in(next->run, next->at, &header, &body); count++) {
        const uint8_t *at = *past;
        int64_t opaque, offset;
        *last = answer_at(&at, end, &opaque, &offset);
        if (*last == WHOLE && (opaque != next->opaque || offset != next->offset))
            *last = OTHER;
        if (*last != WHOLE)
            break;
        *past = at;
        next->opaque = next_opaque(next->opaque, opaques);
        next->offset += RECORD_HEADER_BYTES + (int64_t)body.length;
        next->at += RECORD_HEADER_BYTES + body.length;
    }
    return count;
}
