/* plan_units.h - quantities as an operator writes them: 200ms, 4/s, 400GB/s, 512GiB, 100Gbit/s.
 *
 * A number without its unit is refused: whether 200 means ms or s is not for us to guess.  Each
 * function takes the option's name for its error text, and returns 0 or -EINVAL with *err, which
 * says what was written and which units there are.  Pure functions. */
#ifndef OMNI_GPU_ENGINE_SIM_PLAN_UNITS_H
#define OMNI_GPU_ENGINE_SIM_PLAN_UNITS_H

#include <stdint.h>

#include "common/base/error.h"

/* us, ms, s, min, h; in seconds. */
int plan_parse_time(const char *field, const char *text, double *seconds, struct error *err);

/* /s, /min, /h; per second. */
int plan_parse_frequency(const char *field, const char *text, double *per_second,
                         struct error *err);

/* MB, GB, TB, MiB, GiB, TiB; in bytes. */
int plan_parse_bytes(const char *field, const char *text, double *bytes, struct error *err);

/* MB/s .. TB/s, GiB/s, Mbit/s, Gbit/s, Gbps; in bytes per ns. */
int plan_parse_bandwidth(const char *field, const char *text, double *bytes_per_ns,
                         struct error *err);

/* A number without unit, from least to most. */
int plan_parse_number(const char *field, const char *text, double least, double most, double *value,
                      struct error *err);

/* "2x400GB/s", "400GB/s,512GB", "4": so many of something, each with a bandwidth and a memory; what
 * is not written stays as it is. */
struct plan_parts {
    uint32_t n;
    double bytes_per_ns, bytes;
};
int plan_parse_parts(const char *field, const char *text, struct plan_parts *parts,
                     struct error *err);

#endif
