#ifdef __linux__

#define _GNU_SOURCE 1

#include "lanes.h"

#include <string.h>

#include "held.h"
#include "syscalls.h"

#define FIRST_ROOM 64

struct lane *find_lane(const struct lanes *lanes, int descriptor) {
    if (descriptor < 0 || (size_t)descriptor >= lanes->room || !lanes->all[descriptor].plain)
        return NULL;
    return &lanes->all[descriptor];
}

/* Make room for the lane of a descriptor. */
static bool make_room(struct lanes *lanes, size_t descriptor) {
    size_t room = lanes->room > 0 ? lanes->room : FIRST_ROOM;
    while (room <= descriptor)
        room *= 2;
    if (room == lanes->room)
        return true;
    struct lane *all = sys_realloc(lanes->all, room * sizeof *all);
    if (all == NULL)
        return false;
    memset(all + lanes->room, 0, (room - lanes->room) * sizeof *all);
    lanes->all = all;
    lanes->room = room;
    return true;
}

bool keep_left(struct lane *lane, const uint8_t *left, size_t length) {
    if (length == 0) {
        free(lane->left);
        lane->left = NULL;
    } else {
        uint8_t *kept = sys_realloc(lane->left, length);
        if (kept == NULL)
            return false;
        memcpy(kept, left, length);
        lane->left = kept;
    }
    lane->length = (uint32_t)length;
    return true;
}

bool plain_lane(struct lanes *lanes, int descriptor, const uint8_t *left, size_t length, bool syncs) {
    if (!make_room(lanes, (size_t)descriptor))
        return false;
    struct lane *lane = &lanes->all[descriptor];
    if (!keep_left(lane, left, length))
        return false;
    lane->plain = true;
    lane->syncs = syncs;
    return true;
}

void drop_lane(struct lanes *lanes, int descriptor) {
    struct lane *lane = find_lane(lanes, descriptor);
    if (lane == NULL)
        return;
    free(lane->left);
    *lane = (struct lane){0};
}

void free_lanes(struct lanes *lanes) {
    for (size_t index = 0; index < lanes->room; index++) {
        free(lanes->all[index].left);
        free_held(lanes->all[index].held);
    }
    free(lanes->all);
    *lanes = (struct lanes){0};
}

#endif
