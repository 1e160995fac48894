// Reads `bytes` from `p` with `threads` threads, each a part of its own: the limit of what has to read as much.
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

typedef struct {
    const uint64_t *at;
    size_t words;
    uint64_t sum;
} Part;

static void *read_part(void *argument) {
    Part *part = argument;
    uint64_t sums[32] = {0};
    for (size_t i = 0; i + 32 <= part->words; i += 32) {
        __builtin_prefetch(part->at + i + 512);
        __builtin_prefetch(part->at + i + 520);
        __builtin_prefetch(part->at + i + 528);
        __builtin_prefetch(part->at + i + 536);
        for (int j = 0; j < 32; j++) sums[j] += part->at[i + j];
    }
    for (int j = 0; j < 32; j++) part->sum += sums[j];
    return NULL;
}

void *memory_new(size_t bytes) {
    void *p = aligned_alloc(1 << 21, (bytes + (1 << 21) - 1) >> 21 << 21);
    if (p) madvise(p, bytes, MADV_HUGEPAGE), memset(p, 1, bytes);
    return p;
}

uint64_t memory_read(const void *p, size_t bytes, size_t threads) {
    Part parts[64];
    pthread_t handles[64];
    if (threads > 64) threads = 64;
    size_t words = bytes / 8 / threads / 32 * 32;
    for (size_t i = 0; i < threads; i++) {
        parts[i] = (Part){(const uint64_t *)p + i * words, words, 0};
        if (i > 0) pthread_create(&handles[i], NULL, read_part, &parts[i]);
    }
    read_part(&parts[0]);
    for (size_t i = 1; i < threads; i++) {
        pthread_join(handles[i], NULL);
        parts[0].sum += parts[i].sum;
    }
    return parts[0].sum;
}
