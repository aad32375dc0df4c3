/* options.h - the command line of the probe.
 *
 *   probe --results FILE [--commit ID] [--only PART[,PART...]]
 *                                        measure and write FILE
 *   probe --device                       print the first GPU as part of a file name
 *   probe --list                         print the parts
 *   probe part NAME FILE | ipc-open ...  started by the program itself */
#ifndef OMNI_TESTS_GPU_OPTIONS_H
#define OMNI_TESTS_GPU_OPTIONS_H
#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

enum options_mode {
    OPTIONS_MEASURE,
    OPTIONS_DEVICE,
    OPTIONS_LIST,
    OPTIONS_HELP,
    OPTIONS_PART,     /* argv[2], argv[3] */
    OPTIONS_IPC_OPEN, /* argv[2...] */
};

struct options {
    enum options_mode mode;
    const char *results; /* owned by argv, as the others */
    const char *commit;
    const char *only; /* NULL: every part */
};

/* 0, or -EINVAL with the reason in why. */
int options_parse(struct options *options, int argc, char **argv, char *why, size_t why_bytes);

/* Whether the comma-separated list names this part; NULL names all. */
bool options_selects(const char *only, const char *part);

/* "NVIDIA H100 80GB HBM3" -> "nvidia-h100-80gb-hbm3": lower case, runs of others become one '-'. */
void options_slug(const char *name, char *slug, size_t slug_bytes);

#ifdef __cplusplus
}
#endif
#endif
