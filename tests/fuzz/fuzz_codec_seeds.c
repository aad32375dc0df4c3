/* Writes a sample of every message into a folder, as the first inputs of fuzz_codec. */
#include <stdio.h>

#include "proto/codec.h"
#include "tests/unit/proto_samples.h"

enum { SEED_BYTES_MAX = 1 << 16 };

static int write_seed(const char *folder, enum message_type type, enum sample_kind kind)
{
    static unsigned char buf[SEED_BYTES_MAX];
    struct message m;
    char path[4096];

    sample_make(type, kind, &m);
    ssize_t n = message_encode(&m, buf, sizeof buf, NULL);

    snprintf(path, sizeof path, "%s/%s-%d", folder, message_name(type), kind);
    FILE *out = fopen(path, "wb");

    if (out == NULL || n <= 0 || fwrite(buf, 1, (size_t)n, out) != (size_t)n) {
        perror(path);
        return 1;
    }
    return fclose(out);
}

int main(int argc, char **argv)
{
    int status = 0;

    if (argc != 2) {
        fprintf(stderr, "usage: fuzz_codec_seeds FOLDER\n");
        return 2;
    }
    for (enum message_type type = MESSAGE_NONE + 1; type < N_MESSAGES; type++)
        for (enum sample_kind kind = 0; kind < N_SAMPLE_KINDS; kind++)
            status |= write_seed(argv[1], type, kind);
    return status;
}
