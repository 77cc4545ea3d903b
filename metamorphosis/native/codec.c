#include "codec.h"

#include <string.h>

#define MAX_NUMBER_DIGITS 9 /* of a partition, a length and a flag; a longer number is left to the decoder */
#define MAX_CHECKSUM_DIGITS 10
#define MAX_ID_DIGITS 19
#define MAX_OFFSET_DIGITS 18

static bool is_digit(uint8_t character) { return character >= '0' && character <= '9'; }

/* Read 1 to `most` digits at `at`; returns their number, 0 if there are none or more than `most`. */
static size_t read_digits(const uint8_t *at, const uint8_t *end, size_t most, uint64_t *value) {
    size_t count = 0;
    uint64_t sum = 0;
    while (count < (size_t)(end - at) && is_digit(at[count])) {
        if (count == most)
            return 0;
        sum = sum * 10 + (uint64_t)(at[count] - '0');
        count++;
    }
    *value = sum;
    return count;
}

/* Step over one expected character. */
static bool skip(const uint8_t **at, const uint8_t *end, uint8_t expected) {
    if (*at == end || **at != expected)
        return false;
    (*at)++;
    return true;
}

/* Read a number of up to 9 digits and the blank after it. */
static bool read_number(const uint8_t **at, const uint8_t *end, uint64_t *value) {
    size_t digits = read_digits(*at, end, MAX_NUMBER_DIGITS, value);
    *at += digits;
    return digits > 0 && skip(at, end, ' ');
}

/* Read the verb, topic, partition, length and flag, each with the blank after it. */
static bool read_beginning(const uint8_t **at, const uint8_t *end, const char *verb, struct put *put,
                           uint64_t *length) {
    size_t size = strlen(verb);
    if ((size_t)(end - *at) < size || memcmp(*at, verb, size) != 0)
        return false;
    *at += size;
    const uint8_t *topic = *at;
    while (*at < end && **at != ' ' && **at != '\r')
        (*at)++;
    put->topic = (struct span){topic, (size_t)(*at - topic)};
    uint64_t number;
    if (put->topic.length == 0 || !skip(at, end, ' '))
        return false;
    const uint8_t *partition = *at;
    if (!read_number(at, end, &number))
        return false;
    put->partition = (struct span){partition, (size_t)(*at - partition) - 1};
    put->route = (struct span){topic, (size_t)(*at - topic) - 1};
    if (!read_number(at, end, length))
        return false;
    bool negative = skip(at, end, '-');
    if (!read_number(at, end, &number))
        return false;
    put->flag = negative ? -(int32_t)number : (int32_t)number;
    return true;
}

/* Read an id, a canonical int64, and the blank after it. */
static bool read_id(const uint8_t **at, const uint8_t *end, struct put *put) {
    uint64_t value;
    bool negative = skip(at, end, '-');
    const uint8_t *first = *at;
    size_t digits = read_digits(first, end, MAX_ID_DIGITS, &value);
    if (digits == 0 || (*first == '0' && (negative || digits > 1)))
        return false;
    if (value > (uint64_t)INT64_MAX + (negative ? 1 : 0))
        return false;
    put->id = (int64_t)(negative ? 0 - value : value);
    *at += digits;
    return skip(at, end, ' ');
}

/* Read the checksum and the blank after it, if the token at `at` is not the last one. */
static bool read_checksum(const uint8_t **at, const uint8_t *end, struct put *put) {
    const uint8_t *token = *at;
    uint64_t value;
    bool negative = skip(&token, end, '-');
    size_t digits = read_digits(token, end, MAX_CHECKSUM_DIGITS, &value);
    put->has_checksum = false;
    if (digits == 0)
        return false;
    token += digits;
    if (token == end || *token != ' ')
        return true; /* the opaque */
    if (negative) {
        if (digits != 1 || value != 1)
            return false;
    } else {
        put->has_checksum = true;
        put->checksum = value;
    }
    *at = token + 1;
    return true;
}

/* The opaque in its canonical spelling, an int32. */
static bool read_opaque_word(const uint8_t **at, const uint8_t *end, struct span *opaque) {
    const uint8_t *start = *at;
    const uint8_t *first = start;
    uint64_t value;
    bool negative = skip(&first, end, '-');
    size_t digits = read_digits(first, end, MAX_CHECKSUM_DIGITS, &value);
    if (digits == 0 || (*first == '0' && (negative || digits > 1)))
        return false;
    if (value > (uint64_t)INT32_MAX + (negative ? 1 : 0))
        return false;
    *at = first + digits;
    *opaque = (struct span){start, (size_t)(*at - start)};
    return true;
}

static bool read_line_end(const uint8_t **at, const uint8_t *end) { return skip(at, end, '\r') && skip(at, end, '\n'); }

/* The same and the end of the line. */
static bool read_opaque(const uint8_t **at, const uint8_t *end, struct put *put) {
    return read_opaque_word(at, end, &put->opaque) && read_line_end(at, end);
}

/* Read the part after the flag of a put, or after the id of a record. */
static bool read_rest(const uint8_t *at, const uint8_t *end, size_t max_body, uint64_t length, struct put *put) {
    if (!read_checksum(&at, end, put) || !read_opaque(&at, end, put))
        return false;
    if (length > (uint64_t)(end - at) || length > max_body)
        return false;
    put->body = (struct span){at, (size_t)length};
    put->end = at + length;
    return true;
}

bool read_put(const uint8_t *at, const uint8_t *end, size_t max_body, struct put *put) {
    uint64_t length;
    return read_beginning(&at, end, "put ", put, &length) && read_rest(at, end, max_body, length, put);
}

/* Whether [at, end) begins like `word`, as far as it goes. */
static bool begins(const uint8_t *at, const uint8_t *end, const char *word) {
    size_t length = strlen(word), there = (size_t)(end - at);
    return memcmp(at, word, there < length ? there : length) == 0;
}

/* Whether the first ORDINARY_LINE bytes of [at, end) have the end of a line. */
static bool has_line(const uint8_t *at, const uint8_t *end) {
    if (end - at > ORDINARY_LINE)
        end = at + ORDINARY_LINE;
    while ((at = memchr(at, '\r', (size_t)(end - at))) != NULL)
        if (++at < end && *at == '\n')
            return true;
    return false;
}

/* Whether it may become an ordinary request. */
static bool has_verb(const uint8_t *at, const uint8_t *end, bool syncs) {
    return syncs ? begins(at, end, "sync ") : begins(at, end, "put ") || begins(at, end, "get ");
}

size_t missing_end(const uint8_t *at, const uint8_t *end, size_t max_body, bool syncs) {
    const uint8_t *start = at;
    if (!has_verb(at, end, syncs))
        return 0;
    if (!has_line(at, end))
        return end - at < ORDINARY_LINE ? (size_t)(end - at) + 1 : 0;
    struct put put;
    uint64_t length;
    if (!read_beginning(&at, end, syncs ? "sync " : "put ", &put, &length) || (syncs && !read_id(&at, end, &put)) ||
        !read_checksum(&at, end, &put) || !read_opaque(&at, end, &put) || length > max_body ||
        length <= (uint64_t)(end - at))
        return 0;
    return (size_t)(at - start) + (size_t)length;
}

/* A word of one character or more, or of any length, and the blank behind it. */
static bool read_word(const uint8_t **at, const uint8_t *end, size_t least, struct span *word) {
    const uint8_t *start = *at;
    while (*at < end && **at != ' ' && **at != '\r')
        (*at)++;
    *word = (struct span){start, (size_t)(*at - start)};
    return word->length >= least && skip(at, end, ' ');
}

/* The offset and the size of a get, each with its blank. */
static bool read_wanted(const uint8_t **at, const uint8_t *end, struct get *get) {
    uint64_t offset, size;
    size_t digits = read_digits(*at, end, MAX_OFFSET_DIGITS, &offset);
    *at += digits;
    if (digits == 0 || !skip(at, end, ' ') || *at == end || **at == '0' || !read_number(at, end, &size))
        return false;
    get->offset = (int64_t)offset;
    get->size = (int64_t)size;
    return true;
}

/* What may follow the opaque of a get: how long it may wait. */
static bool read_wait(const uint8_t **at, const uint8_t *end) {
    if (!skip(at, end, ' '))
        return true;
    uint64_t wait;
    size_t digits = read_digits(*at, end, MAX_NUMBER_DIGITS, &wait);
    *at += digits;
    return digits > 0;
}

bool read_get(const uint8_t *at, const uint8_t *end, struct get *get) {
    const uint8_t *line = at;
    struct span group;
    uint64_t partition;
    if (end - at < 4 || memcmp(at, "get ", 4) != 0)
        return false;
    at += 4;
    if (!read_word(&at, end, 1, &get->topic) || !read_word(&at, end, 0, &group))
        return false;
    const uint8_t *start = at;
    if (!read_number(&at, end, &partition))
        return false;
    get->partition = (struct span){start, (size_t)(at - start) - 1};
    if (!read_wanted(&at, end, get) || !read_opaque_word(&at, end, &get->opaque) || !read_wait(&at, end) ||
        !read_line_end(&at, end) || at - line > ORDINARY_LINE)
        return false;
    get->end = at;
    return true;
}

bool read_sync(const uint8_t *at, const uint8_t *end, size_t max_body, struct put *put) {
    uint64_t length;
    return read_beginning(&at, end, "sync ", put, &length) && read_id(&at, end, put) &&
           read_rest(at, end, max_body, length, put);
}

/* Whether the unsigned number at `token` has no superfluous zero. */
static bool is_canonical(const uint8_t *token) { return token[0] != '0' || !is_digit(token[1]); }

/* The same for a number that may be negative. */
static bool is_canonical_signed(const uint8_t *token) {
    return token[0] == '-' ? token[1] != '0' : is_canonical(token);
}

bool read_transaction_put(const uint8_t *at, const uint8_t *end, size_t max_body, struct span key, struct put *put) {
    const uint8_t *start = at;
    uint64_t length;
    if (!read_beginning(&at, end, "put ", put, &length))
        return false;
    const uint8_t *token = put->route.start + put->route.length + 1;
    const uint8_t *flag = memchr(token, ' ', (size_t)(at - token));
    const uint8_t *checksum = at;
    if (!is_canonical(token) || !is_canonical_signed(flag + 1) || !read_checksum(&at, end, put) || at == checksum ||
        !is_canonical_signed(checksum))
        return false;
    if ((size_t)(end - at) < key.length || memcmp(at, key.start, key.length) != 0)
        return false;
    at += key.length;
    if (!skip(&at, end, ' ') || !read_opaque(&at, end, put) || at - start > ORDINARY_LINE)
        return false;
    if (length > (uint64_t)(end - at) || length > max_body)
        return false;
    put->body = (struct span){at, (size_t)length};
    put->end = at + length;
    return true;
}

static void write_big_endian(uint8_t *to, uint64_t value, size_t bytes) {
    for (size_t index = bytes; index-- > 0; value >>= 8)
        to[index] = (uint8_t)(value & 0xff);
}

void write_header(uint8_t header[RECORD_HEADER_BYTES], uint32_t length, uint32_t checksum, int64_t id, int32_t flag) {
    write_big_endian(header, length, 4);
    write_big_endian(header + 4, checksum, 4);
    write_big_endian(header + 8, (uint64_t)id, 8);
    write_big_endian(header + 16, (uint32_t)flag, 4);
}

uint8_t *write_number(uint8_t *to, int64_t number) {
    static const char two[] =
        "00010203040506070809101112131415161718192021222324252627282930313233343536373839404142434445"
        "46474849505152535455565758596061626364656667686970717273747576777879808182838485868788899091"
        "9293949596979899";
    uint8_t digits[MAX_INT64_CHARACTERS + 1];
    size_t first = sizeof digits;
    uint64_t rest = number < 0 ? 0 - (uint64_t)number : (uint64_t)number;
    for (; rest >= 10; rest /= 100) {
        first -= 2;
        memcpy(digits + first, two + 2 * (rest % 100), 2);
    }
    if (rest > 0 || first == sizeof digits)
        digits[--first] = (uint8_t)('0' + rest);
    if (number < 0)
        *to++ = '-';
    memcpy(to, digits + first, sizeof digits - first);
    return to + (sizeof digits - first);
}

static uint8_t *write_span(uint8_t *to, struct span span) {
    memcpy(to, span.start, span.length);
    return to + span.length;
}

size_t write_put_reply(uint8_t reply[PUT_REPLY_BYTES], const struct put *put, int64_t id, int64_t offset) {
    static const uint8_t head[] = {'r', 'e', 's', 'u', 'l', 't', ' ', '2', '0', '0', ' '};
    uint8_t text[2 * MAX_INT64_CHARACTERS + MAX_NUMBER_DIGITS + 2];
    uint8_t *past = write_number(text, id);
    *past++ = ' ';
    past = write_span(past, put->partition);
    *past++ = ' ';
    past = write_number(past, offset);
    struct span whole = {text, (size_t)(past - text)};

    uint8_t *to = write_span(reply, (struct span){head, sizeof head});
    to = write_number(to, (int64_t)whole.length);
    *to++ = ' ';
    to = write_span(to, put->opaque);
    *to++ = '\r';
    *to++ = '\n';
    to = write_span(to, whole);
    return (size_t)(to - reply);
}

size_t write_get_head(uint8_t head[GET_HEAD_BYTES], const struct get *get, int64_t length) {
    static const uint8_t verb[] = {'v', 'a', 'l', 'u', 'e', ' '};
    uint8_t *to = write_span(head, (struct span){verb, sizeof verb});
    to = write_number(to, length);
    *to++ = ' ';
    to = write_span(to, get->opaque);
    *to++ = '\r';
    *to++ = '\n';
    return (size_t)(to - head);
}

static uint64_t read_big_endian(const uint8_t *from, size_t bytes) {
    uint64_t value = 0;
    for (size_t index = 0; index < bytes; index++)
        value = value << 8 | from[index];
    return value;
}

bool read_record(const uint8_t *at, const uint8_t *end, size_t max_body, struct record *record) {
    if ((size_t)(end - at) < RECORD_HEADER_BYTES)
        return false;
    uint32_t length = (uint32_t)read_big_endian(at, 4);
    record->checksum = (uint32_t)read_big_endian(at + 4, 4);
    record->id = (int64_t)read_big_endian(at + 8, 8);
    record->flag = (int32_t)read_big_endian(at + 16, 4);
    at += RECORD_HEADER_BYTES;
    if (length > INT32_MAX || length > max_body || length > (size_t)(end - at))
        return false;
    if (length == 0 && record->id == 0 && record->flag == 0)
        return false; /* a file system leaves zeros after a crash */
    record->body = (struct span){at, length};
    record->end = at + length;
    return true;
}

static size_t varint_bytes(uint64_t value) {
    size_t bytes = 1;
    while (value >>= 7)
        bytes++;
    return bytes;
}

static uint8_t *write_varint(uint8_t *to, uint64_t value) {
    for (; value > 127; value >>= 7)
        *to++ = (uint8_t)(value & 127) | 128;
    *to++ = (uint8_t)value;
    return to;
}

/* The content of an APPEND: field 1, the message id, and field 2, the put command. */
static size_t content_bytes(int64_t id, size_t frame) {
    return 1 + varint_bytes((uint64_t)id) + 1 + varint_bytes(frame) + frame;
}

size_t append_bytes(int64_t id, size_t frame) {
    size_t content = content_bytes(id, frame);
    return 4 + 3 + varint_bytes(content) + content;
}

void write_append(uint8_t *record, int64_t id, struct span frame) {
    static const uint8_t kind[] = {0x08, 0x01, 0x12};
    write_big_endian(record, append_bytes(id, frame.length) - 4, 4);
    uint8_t *to = write_span(record + 4, (struct span){kind, sizeof kind});
    to = write_varint(to, content_bytes(id, frame.length));
    *to++ = 0x08;
    to = write_varint(to, (uint64_t)id);
    *to++ = 0x12;
    to = write_varint(to, frame.length);
    write_span(to, frame);
}
