/* run_input.h - the request file of `omni run`. */
#ifndef OMNI_PROTO_CLI_RUN_INPUT_H
#define OMNI_PROTO_CLI_RUN_INPUT_H

#include "proto/cli/files.h"
#include "proto/cli/run_request.h"

struct run_input {
    struct file_bytes file;
    struct run_request *requests;
    uint32_t n;
};

/* Reads path ("-": stdin).  *.jsonl, or jsonl set: one request per line, each a JSON object with
 * prompt, messages or tokens, and options, before which those of the command line go (given);
 * else the whole file is one raw prompt.  chat: a prompt becomes a user's message, so that the chat
 * template is applied, and a whole file loses the newline at its end.  A request
 * that wants n answers becomes n.  0 or -errno; error names the line. */
int run_input_read(struct run_input *in, const char *path, bool jsonl, bool chat,
                   const struct message_generate *given, struct error *error);

void run_input_fini(struct run_input *in);

#endif
