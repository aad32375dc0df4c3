/* config.h - the one configuration of a group, read by all its programs from the same INI file.
 *
 * DESIGN.  config_table.h has one row per option: key, type, default, bounds, unit and a line of
 * documentation; struct omni_config, the parser, the bounds check, --print-config and the command
 * line all come from it.  Defaults < file < command line (--set section.key=value).  An unknown key
 * is an error that names the nearest.  Plain data after loading; what config_reload changes, and
 * nothing else, may change later. */
#ifndef OMNI_COMMON_BASE_CONFIG_H
#define OMNI_COMMON_BASE_CONFIG_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "common/base/error.h"

enum {
    CONFIG_STRING_MAX = 256,
    CONFIG_CLASSES_MAX = 8,
    CONFIG_CLASS_NAME_MAX = 16,
    CONFIG_TENANTS_MAX = 32,     /* those that are not named are one of them */
    CONFIG_TENANT_NAME_MAX = 65, /* as a request may give */
};

enum config_device { CONFIG_DEVICE_CPU, CONFIG_DEVICE_CUDA, CONFIG_DEVICE_SIM, CONFIG_DEVICE_AUTO };
enum config_weights { CONFIG_WEIGHTS_FILE, CONFIG_WEIGHTS_DUMMY };
enum config_offload { CONFIG_OFFLOAD_AUTO, CONFIG_OFFLOAD_ALWAYS, CONFIG_OFFLOAD_NEVER };
enum config_profile { CONFIG_PROFILE_AUTO, CONFIG_PROFILE_FRESH, CONFIG_PROFILE_OFF };
enum config_deadlines { CONFIG_DEADLINES_GAP, CONFIG_DEADLINES_TOKEN };
enum config_kv_type { CONFIG_KV_F16, CONFIG_KV_BF16, CONFIG_KV_F32, CONFIG_KV_INT8 };

/* Field types by option type; field names are <section>_<key>. */
#define CONFIG_FIELD_U32(field)    uint32_t field;
#define CONFIG_FIELD_MS(field)     uint32_t field; /* milliseconds */
#define CONFIG_FIELD_BOOL(field)   bool field;
#define CONFIG_FIELD_STRING(field) char field[CONFIG_STRING_MAX];
#define CONFIG_FIELD_ENUM(field)   uint32_t field; /* the enum named in the row */

#define CONFIG_ROW(section, key, type, ...) CONFIG_FIELD_##type(section##_##key)

#include "common/base/config_table.h"

struct omni_config {
    CONFIG_TABLE(CONFIG_ROW)
};

void config_defaults(struct omni_config *c);

/* Reads an INI file over what c holds.  The text names file, line and key.  Lines of 199 characters
 * at most; " ;" starts a comment. */
int config_load(struct omni_config *c, const char *path, struct error *err);

/* "section.key=value". */
int config_set(struct omni_config *c, const char *assignment, struct error *err);

/* Checks that concern several options (each option's own bounds are checked when it is set). */
int config_check(const struct omni_config *c, struct error *err);

/* An INI file with every option, its documentation, default and present value. */
void config_print(const struct omni_config *c, FILE *out);

/* group.classes as a list, highest first: names, and how many (>= 1 after config_check). */
uint32_t config_classes(const struct omni_config *c,
                        char names[CONFIG_CLASSES_MAX][CONFIG_CLASS_NAME_MAX]);

/* tenants.weights as a list.  Tenant 0 is everybody who is not named, with tenants.others. */
struct config_tenants {
    uint32_t n; /* >= 1 */
    char names[CONFIG_TENANTS_MAX][CONFIG_TENANT_NAME_MAX];
    uint32_t weights[CONFIG_TENANTS_MAX];
};

/* 0, or -EINVAL with *err (never after config_check). */
int config_tenants(const struct omni_config *c, struct config_tenants *out, struct error *err);

/* The tenant of that name, n characters of it; 0: of those that are not named. */
uint32_t config_tenant_find(const struct config_tenants *t, const char *name, size_t n);

/* Letters, digits, '.', '_' and '-', not beginning with '.'; n characters. */
bool config_is_plain_name(const char *s, size_t n);

/* worker.engine_shares of engine i (>= 1 after config_check). */
uint32_t config_engine_share(const struct omni_config *c, uint32_t i);

/* "first-last", both ports, in order.  0 or -EINVAL. */
int config_port_range(const char *text, uint16_t *first, uint16_t *last);

/* "a,b,c" item i of a comma-separated option; false when there is none.  Blanks are trimmed. */
bool config_list_item(const char *list, uint32_t i, char *out, size_t out_size);

/* ---- command line of a program ---- */

struct config_program {
    const char *name;    /* "omni-gpu-engine" */
    const char *summary; /* one line for --help */
    bool has_index;      /* --index N */
};

struct config_args {
    uint32_t index;          /* --index */
    const char *config_path; /* --config, or NULL */
};

enum config_parse {
    CONFIG_RUN,      /* go on */
    CONFIG_EXIT_OK,  /* --help, --version, --print-*, --check-config did their work */
    CONFIG_EXIT_BAD, /* the reason was printed to stderr */
};

/* Defaults, then --config FILE, then each --set; prints what was asked for. */
enum config_parse config_parse_argv(struct omni_config *c, struct config_args *args,
                                    const struct config_program *program, int argc, char **argv);

/* Parses the command line and the file again, into what c holds: options named in `reloadable`
 * ("section.key", NULL-terminated) take their new values; for each other that differs the log says
 * that it needs a restart.  A configuration that is not valid changes nothing.  How many options
 * changed, or -EINVAL; the log has it all. */
int config_reload(struct omni_config *c, const struct config_program *program,
                  const char *const *reloadable, int argc, char **argv);

#endif
