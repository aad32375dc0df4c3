/* field.h - what encoder and decoder share: where a field lies, what it may hold, how a fault is
 * told; internal to proto.  Pure functions over the caller's memory. */
#ifndef OMNI_PROTO_FIELD_H
#define OMNI_PROTO_FIELD_H

#include "proto/codec.h"

/* The type key.  Not "type": short, and no field of a message may ever need it. */
#define FIELD_TYPE_KEY "t"

/* Where we are: inside element idx of a list, or (list NULL) at the top of the message. */
struct field_path {
    const struct field_info *list;
    uint32_t idx;
};

/* The generic form of struct <record>_list, u32_array and str_array. */
struct field_view {
    const void *data;
    uint32_t n;
};

/* Does the value of a field in its struct keep to its bound?  Lists: their length alone. */
enum codec_fault field_check(const struct field_info *field, const void *record);

static inline const void *field_at(const struct field_info *field, const void *record)
{
    return (const unsigned char *)record + field->off;
}

/* Bytes of the shortest map that has the keys of all required fields, with one byte of value each.  A
 * record takes at most CODEC_ARENA_FACTOR times that in memory. */
size_t field_record_bytes_min(const struct record_info *info);

bool field_is_set(const struct field_info *field, const void *record);

/* Fills in error (which may be NULL); name is a key or field name, or NULL for the message as a
 * whole.  Returns the errno of the fault, negative. */
int field_fail(struct codec_error *error, enum codec_fault fault, const struct field_path *path,
               const char *name, uint32_t name_bytes);

#endif
