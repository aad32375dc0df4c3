/* libFuzzer target: any bytes as a message.  What decodes must encode, and decode to the same
 * again; the codec's own tests make the seeds (build/<preset>/bin/fuzz_codec_seeds DIR). */
#include <stdint.h>
#include <stdlib.h>

#include "common/base/invariant.h"
#include "proto/codec.h"
#include "tests/unit/proto_samples.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

enum { BYTES_MAX = 1 << 16, ARENA_BYTES = CODEC_ARENA_FACTOR * 4 * BYTES_MAX };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static _Alignas(16) unsigned char memory[2][ARENA_BYTES];
    static unsigned char again[4 * BYTES_MAX];
    struct codec_arena arena;
    struct codec_error error;
    struct message m, back;

    codec_arena_init(&arena, memory[0], n * CODEC_ARENA_FACTOR + CODEC_ARENA_BYTES_EXTRA);
    if (n > BYTES_MAX)
        return 0;
    int err = message_decode(data, n, &m, &arena, &error);

    /* The arena is as large as the header asks for, so it is never too small. */
    invariant(error.fault != CODEC_NO_ROOM);
    if (err != 0) {
        invariant(error.fault != CODEC_OK && error.text[0] != '\0');
        return 0;
    }
    ssize_t n_again = message_encode(&m, again, sizeof again, &error);

    invariant(n_again > 0);
    codec_arena_init(&arena, memory[1], sizeof memory[1]);
    invariant(message_decode(again, (size_t)n_again, &back, &arena, &error) == 0);
    invariant(sample_equal(&m, &back));
    return 0;
}
