/* config_options.h - the table of options as data; private to config*.c. */
#ifndef OMNI_COMMON_BASE_CONFIG_OPTIONS_H
#define OMNI_COMMON_BASE_CONFIG_OPTIONS_H

#include <stddef.h>
#include <stdint.h>

enum config_type {
    CONFIG_TYPE_U32,
    CONFIG_TYPE_MS,
    CONFIG_TYPE_BOOL,
    CONFIG_TYPE_STRING,
    CONFIG_TYPE_ENUM
};

struct config_option {
    const char *section, *key;
    enum config_type type;
    const char *default_text;
    uint64_t min, max; /* of the number, the length or the enum's value */
    const char *unit;  /* or the enum's names */
    const char *doc;
    size_t offset; /* in struct omni_config */
};

/* All options in the order of the table. */
const struct config_option *config_options(uint32_t *n);

/* Name of an enum option's value i, *len characters of it; NULL if there is none. */
const char *config_enum_name(const struct config_option *o, uint32_t i, size_t *len);

#endif
