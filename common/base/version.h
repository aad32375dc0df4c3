/* version.h - the one version number of all programs; as in CMakeLists.txt. */
#ifndef OMNI_COMMON_BASE_VERSION_H
#define OMNI_COMMON_BASE_VERSION_H

#define OMNI_VERSION "0.1.0"

#endif
