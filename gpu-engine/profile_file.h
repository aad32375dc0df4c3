/* profile_file.h - a profile as text: `key=value` lines behind a line that names the version.
 *
 * Every field must be there once, and nothing else; numbers are finite and not negative, staircases
 * ascend.  A file is written beside its name and renamed, so that a reader never sees half of it.
 */
#ifndef OMNI_GPU_ENGINE_PROFILE_FILE_H
#define OMNI_GPU_ENGINE_PROFILE_FILE_H

#include "gpu-engine/profile.h"

/* Path of the key's file in dir; dir "" = ${XDG_CACHE_HOME:-~/.cache}/omniserve/profiles.
 * -ENAMETOOLONG, -ENOENT (no home). */
int profile_file_path(char path[PROFILE_PATH_MAX], const char *dir, const struct profile_key *key);

/* 0, -ENOENT (no such file), -errno; -EINVAL names file, line and field. */
int profile_file_read(struct profile *p, const char *path, struct error *err);

/* Makes the folders that are missing.  0 or -errno with *err. */
int profile_file_write(const struct profile *p, const char *path, struct error *err);

/* Does it belong to this key and to these layers?  0, or -EINVAL with the first field that differs,
 * what was found and what was expected. */
int profile_file_fits(const struct profile *p, const struct profile_key *key,
                      const struct latency_model *layers, struct error *err);

#endif
