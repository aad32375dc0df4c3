/* json_record.h - a JSON object as a message's record: the same keys, types by the same table.
 *
 * So a line of a request file takes whatever the message generate takes, and nothing else.  Bounds
 * are the encoder's business.  An id is 32 hexadecimal digits here.  Arrays come from a pool that
 * is freed as a whole; strings point into the JSON object, which must stay alive. */
#ifndef OMNI_PROTO_CLI_JSON_RECORD_H
#define OMNI_PROTO_CLI_JSON_RECORD_H

#include <jansson.h>

#include "common/base/error.h"
#include "proto/messages.h"

struct json_pool_block;

struct json_pool {
    struct json_pool_block *blocks;
};

void json_pool_free(struct json_pool *pool);

/* 0; -EINVAL: error names the key; -ENOMEM.  Does not ask whether required fields are there. */
int json_to_record(const json_t *object, const struct record_info *info, void *record,
                   struct json_pool *pool, struct error *error);

#endif
